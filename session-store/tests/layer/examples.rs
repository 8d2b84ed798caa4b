//! The examples run as they stand: `cargo test` has built them beside this program.

use std::path::PathBuf;
use std::process::Command;

fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let file = here.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(file.is_file(), "{} is not built: run `cargo test` without naming a test target", file.display());
    file
}

#[test]
fn each_example_runs_to_its_end() {
    for name in ["first_session", "log_out_wins"] {
        let out = Command::new(program(name)).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && !out.stdout.is_empty(), "{name}: {said}");
    }
}

/// The site serves until it is ended: each of its views is counted, and only for who has the cookie.
#[test]
fn the_site_counts_views() {
    let mut site = Command::new(program("site"));
    let mut site = site.env("LISTEN", "127.0.0.1:0").stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(site.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
    let address = said.trim().trim_start_matches("http://").to_owned();
    let ask = |cookie: &str| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{cookie}\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    };
    let first = ask("");
    let set = first.lines().find_map(|line| line.strip_prefix("set-cookie: "));
    let cookie = set.and_then(|set| set.split(';').next()).map(str::to_owned);
    let second = ask(&format!("cookie: {}\r\n", cookie.clone().unwrap_or_default()));
    let stranger = ask("");
    site.kill().unwrap();
    site.wait().unwrap();
    assert!(cookie.is_some() && first.contains("your view 1"), "{first}");
    assert!(second.contains("your view 2"), "{second}");
    assert!(stranger.contains("your view 1"), "{stranger}");
}
