//! A routing rule: any text is a rule or an error, and a rule says of itself what it is.
#![no_main]

use balancer::routing::Rule;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse::<Rule>().as_ref(), Ok(&rule));
        rule.matches("a.example", "/api");
    }
    let _ = text.parse::<balancer::proxy::Cidr>();
});
