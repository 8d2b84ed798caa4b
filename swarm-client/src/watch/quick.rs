//! The short way through a list in which little has changed.
//!
//! The engine writes an object's id and version first, and an object of the same version in the same bytes. So an object that is
//! known in its version is passed over by its length, without a look at what it says: what stands after it tells whether the length
//! was right. Where anything is not as expected, the long way reads the list from its start. Pure.

use serde_json::value::RawValue;

/// The objects of a list that are not known, as texts, if the short way leads to the list's end. `length` gives the length of an
/// object that is known in this version, and notes that it was seen.
pub(super) fn unknown(
    json: &[u8],
    mut length: impl FnMut(&str, u64) -> Option<usize>,
) -> Option<Vec<&RawValue>> {
    let mut rest = json.strip_prefix(b"[")?;
    let mut unknown = Vec::new();
    if !rest.starts_with(b"]") {
        loop {
            let (id, version) = head(rest)?;
            let passed = length(id, version).and_then(|length| rest.get(length..)).filter(|after| {
                let end = &rest[..rest.len() - after.len()];
                end.ends_with(b"}") && (after.starts_with(NEXT) || after.starts_with(b"]"))
            });
            rest = match passed {
                Some(after) => after,
                None => {
                    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
                    unknown.push(values.next()?.ok()?);
                    &rest[values.byte_offset()..]
                }
            };
            match rest.strip_prefix(b",") {
                Some(next) => rest = next,
                None => break,
            }
        }
    }
    rest.strip_prefix(b"]")?.iter().all(u8::is_ascii_whitespace).then_some(unknown)
}

/// An object's id and version, if it begins as the engine writes it.
pub(super) fn head(json: &[u8]) -> Option<(&str, u64)> {
    let json = json.get(..HEAD).unwrap_or(json).strip_prefix(b"{\"ID\":\"")?;
    let end = json.iter().position(|byte| !byte.is_ascii_alphanumeric())?;
    let (id, rest) = json.split_at(end);
    let rest = rest.strip_prefix(b"\",\"Version\":{\"Index\":")?;
    let end = rest.iter().position(|byte| *byte == b'}')?;
    let version = std::str::from_utf8(&rest[..end]).ok()?;
    Some((std::str::from_utf8(id).ok()?, version.parse().ok()?))
}

/// What stands between two objects.
const NEXT: &[u8] = b",{\"ID\":\"";
/// An id has 25 bytes and a version 20 at most; more is looked at for those of other engines.
const HEAD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(json: &str, known: &[(&str, u64, usize)]) -> Option<Vec<String>> {
        let found = unknown(json.as_bytes(), |id, version| {
            known.iter().find(|known| (known.0, known.1) == (id, version)).map(|known| known.2)
        });
        found.map(|all| all.iter().map(|raw| raw.get().to_owned()).collect())
    }

    #[test]
    fn what_is_known_is_passed_over_unread() {
        let a = r#"{"ID":"a","Version":{"Index":1},"X":[1,{"ID":"}"}]}"#;
        let b = r#"{"ID":"b","Version":{"Index":2}}"#;
        let list = format!("[{a},{b}]\n");
        assert_eq!(walk(&list, &[]).unwrap(), [a, b]);
        assert_eq!(walk(&list, &[("a", 1, a.len())]).unwrap(), [b]);
        assert_eq!(walk(&list, &[("a", 1, a.len()), ("b", 2, b.len())]).unwrap(), [""; 0]);
        // Not in another version, and a wrong length is found out.
        assert_eq!(walk(&list, &[("a", 2, a.len())]).unwrap(), [a, b]);
        for wrong in [0, 1, a.len() - 1, a.len() + 1, list.len(), usize::MAX] {
            assert_eq!(walk(&list, &[("a", 1, wrong)]).unwrap(), [a, b], "{wrong}");
        }
        // It is not looked at: this is no JSON.
        let odd = list.replace("[1,", "[1 ");
        assert_eq!(walk(&odd, &[("a", 1, a.len())]).unwrap(), [b]);
        assert_eq!(walk("[]", &[]).unwrap(), [""; 0]);
    }

    #[test]
    fn anything_else_is_left_to_the_long_way() {
        let a = r#"{"ID":"a","Version":{"Index":1}}"#;
        for list in [
            String::new(),
            "null".to_owned(),
            "[".to_owned(),
            format!("[{a}"),
            format!("[{a},"),
            format!("[{a},]"),
            format!("[{a}]]"),
            format!("[{a}] x"),
            format!("[{a}, {a}]"),
            format!("[{a},7]"),
            r#"[{"Version":{"Index":1},"ID":"a"}]"#.to_owned(),
            r#"[{"ID":"\u0061","Version":{"Index":1}}]"#.to_owned(),
            r#"[{"ID":"a","Version":{"Index":-1}}]"#.to_owned(),
        ] {
            assert_eq!(walk(&list, &[("a", 1, a.len())]), None, "{list}");
        }
    }
}
