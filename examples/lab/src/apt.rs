//! Reading the machine's own apt sources, to learn which Debian mirror it uses.

/// A Debian archive that this machine's own sources name, and how it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) uri: String,
    pub(crate) signed_by: Option<String>,
}

/// The first Debian archive in `text`, in either of apt's two formats (sources.list(5)).
/// Security and third-party archives don't count: they don't carry whole releases.
pub(crate) fn mirror(text: &str) -> Option<Mirror> {
    one_line(text).or_else(|| deb822(text))
}

fn one_line(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let line = line.split('#').next()?.trim().strip_prefix("deb ")?.trim();
        let (options, rest) = match line.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", line),
        };
        let signed_by =
            options.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).map(str::to_owned);
        let uri = rest.split_whitespace().next()?;
        let main = rest.split_whitespace().skip(2).any(|c| c == "main");
        (main && is_debian(uri)).then(|| Mirror { uri: uri.to_owned(), signed_by })
    })
}

fn deb822(text: &str) -> Option<Mirror> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let field = |name: &str| {
            stanza.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let has =
            |name: &str, word: &str| field(name).is_some_and(|v| v.split_whitespace().any(|w| w == word));
        if !has("Types", "deb") || !has("Components", "main") || has("Enabled", "no") {
            return None;
        }
        let uri = field("URIs")?.split_whitespace().find(|uri| is_debian(uri))?;
        // An inline key block has no path: apt's default keyring serves then.
        let signed_by = field("Signed-By").filter(|v| v.starts_with('/')).map(str::to_owned);
        Some(Mirror { uri: uri.to_owned(), signed_by })
    })
}

fn is_debian(uri: &str) -> bool {
    let known =
        ["http://", "https://", "mirror+http://", "file:"].iter().any(|scheme| uri.starts_with(scheme));
    known && uri.trim_end_matches('/').ends_with("/debian")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_format_is_read() {
        let text = "Types: deb\nURIs: http://security.example/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
                    # a comment: here\nTypes: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\n\
                    Components: main contrib\nSigned-By: /usr/share/keyrings/k.gpg\n";
        let found = mirror(text).unwrap();
        assert_eq!(found.uri, "http://mirror.example/debian");
        assert_eq!(found.signed_by.as_deref(), Some("/usr/share/keyrings/k.gpg"));
    }

    #[test]
    fn the_old_format_is_read() {
        let text = "# deb http://old.example/debian sid main\ndeb https://x.example/apt stable main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian/ bookworm main\n";
        let found = mirror(text).unwrap();
        assert_eq!(found.uri, "https://m.example/debian/");
        assert_eq!(found.signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(mirror("deb http://m.example/debian bookworm main").unwrap().signed_by, None);
    }

    #[test]
    fn what_is_no_debian_archive_is_left_out() {
        for text in [
            "",
            "deb",
            "deb [",
            "deb http://m.example/ubuntu jammy main",
            "deb cdrom:[Debian]/debian bookworm main",
            "deb-src http://m.example/debian bookworm main",
            "Types: deb\nURIs: http://m.example/debian\nSuites: x\nComponents: main\nEnabled: no",
            "Types: deb\nURIs: http://m.example/ubuntu\nSuites: x\nComponents: main",
        ] {
            assert_eq!(mirror(text), None, "{text}");
        }
    }
}
