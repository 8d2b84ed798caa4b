//! Any `Cookie` headers, one a line: no panic, and no id that is not spelled out in one.
#![no_main]

use http::{HeaderMap, HeaderValue, header::COOKIE};
use libfuzzer_sys::fuzz_target;
use session_store::CookieConfig;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(COOKIE, value);
        }
    }
    for config in [CookieConfig::default(), CookieConfig::insecure_local()] {
        if let Some(id) = config.read(&headers) {
            let spelled = format!("{}={}", config.name(), id.to_cookie_value());
            let found = |value: &HeaderValue| value.as_bytes().windows(spelled.len()).any(|part| part == spelled.as_bytes());
            assert!(headers.get_all(COOKIE).iter().any(found));
        }
    }
});
