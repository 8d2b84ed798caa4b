//! Any text as an expression or a whitelist, asked about any candidate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use swarm_client::engines::{Expr, Operator, Whitelist};

fuzz_target!(|input: (&str, &str)| {
    let (text, candidate) = input;
    if let Ok(expr) = text.parse::<Expr>() {
        let found = expr.matches([candidate]);
        assert_eq!(expr.matches([candidate, candidate]), found);
        assert_eq!(expr.matches([]), expr.operator() == Operator::NotEqual);
        assert_eq!(expr.to_string().parse::<Expr>().as_ref(), Ok(&expr), "{text:?}");
    }
    if let Ok(list) = text.parse::<Whitelist>() {
        let _ = list.allows(candidate);
        assert_eq!(list.to_string().parse::<Whitelist>().as_ref(), Ok(&list), "{text:?}");
    }
});
