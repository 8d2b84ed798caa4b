//! Mutated requests against what we read ourselves: bounded, seeded, and no replacement for the fuzz targets in `fuzz/`,
//! which go where the code's branches lead.

use balancer::proxy::fuzzing;

/// Small and seeded (Steele and others, SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

const LINES: [&str; 24] = [
    "Host: a",
    "Host: b",
    "Connection: close",
    "Connection: x-own, keep-alive",
    "Connection: cookie",
    "Connection: te, upgrade",
    "Connection: x-forwarded-for",
    "Connection: ,, ,forwarded",
    "X-Own: 1",
    "Keep-Alive: 5",
    "TE: trailers, gzip",
    "TE: gzip",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip",
    "Content-Length: 3",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "HTTP2-Settings: x",
    "X-Forwarded-For: 1.2.3.4, 5.6.7.8",
    "X-Forwarded-Proto: http",
    "Forwarded: for=1.2.3.4",
    "X-Real-IP: 1.2.3.4",
    "Cookie: home=1; home=2",
    "Proxy-Connection: keep-alive",
];

#[test]
fn twenty_thousand_mutated_requests_are_refused_or_forwarded_clean() {
    let mut dice = Dice(7);
    let (mut passed, mut refused) = (0, 0);
    for round in 0..20_000 {
        let start = ["GET /", "POST /a?b", "GET http://a/", "OPTIONS *", "PUT /x"][dice.roll(5)];
        let mut text = start.as_bytes().to_vec();
        if dice.roll(4) > 0 {
            text.extend_from_slice(b"\nHost: a");
        }
        for _ in 0..dice.roll(6) {
            text.push(b'\n');
            text.extend_from_slice(LINES[dice.roll(LINES.len())].as_bytes());
        }
        for _ in 0..dice.roll(3) {
            let at = dice.roll(text.len());
            match dice.roll(3) {
                0 => text[at] = dice.roll(256) as u8,
                1 => drop(text.remove(at)),
                _ => text.insert(at, b" ,;:\n\"x"[dice.roll(7)]),
            }
        }
        match fuzzing::request(&text) {
            Ok(true) => passed += 1,
            Ok(false) => refused += 1,
            Err(wrong) => panic!("round {round}: {wrong}: {:?}", String::from_utf8_lossy(&text)),
        }
        let _ = (fuzzing::head(&text), fuzzing::chain(&text), fuzzing::cookie(&text));
    }
    // Both ways are taken, or it says nothing.
    assert!(passed > 1000 && refused > 1000, "{passed} passed, {refused} refused");
}

/// What is wrong would be seen.
#[test]
fn a_plain_request_is_forwarded_and_a_bad_one_refused() {
    assert_eq!(fuzzing::request(b"GET /\nHost: a\nConnection: x-own\nX-Own: 1"), Ok(true));
    assert_eq!(fuzzing::request(b"GET /\nHost: a\nHost: a"), Ok(false));
    assert_eq!(fuzzing::request(b"GET /\nHost: a\nConnection: cookie"), Ok(false));
}
