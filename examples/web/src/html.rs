//! The pages' HTML. Everything that a person or a setting gave goes through [`escape`].

use crate::{pages::Answer, state::AppState};

pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn login(state: &AppState, problem: Option<&str>) -> String {
    let problem =
        problem.map(|text| format!("<p class=problem role=alert>{}</p>", escape(text))).unwrap_or_default();
    let main = format!(
        "<h1>Welcome</h1><p>Log in with any name. The session follows you to whichever instance answers.</p>{problem}\
         <form method=post action=/login><label for=user>Name</label>\
         <input id=user name=user maxlength=64 required autofocus autocomplete=username>\
         <button>Log in</button></form>"
    );
    page("Log in", &main, state.instance(), state.host())
}

pub(crate) fn counter(answer: &Answer) -> String {
    let user = escape(answer.user.as_deref().unwrap_or_default());
    let (views, noun) = (answer.views, if answer.views == 1 { "view" } else { "views" });
    let main = format!(
        "<h1>Hello, <span id=user>{user}</span></h1>\
         <p class=count><strong id=views>{views}</strong> {noun} in this session</p>\
         <div class=row><a class=button href=/>View again</a>\
         <form method=post action=/logout><button class=quiet>Log out</button></form></div>"
    );
    page("Views", &main, &answer.instance, &answer.host)
}

pub(crate) fn unavailable(state: &AppState) -> String {
    let main = "<h1>One moment</h1><p>The session store does not answer right now. Please try again in a moment.</p>\
                <div class=row><a class=button href=/>Try again</a></div>";
    page("One moment", main, state.instance(), state.host())
}

fn page(title: &str, main: &str, instance: &str, host: &str) -> String {
    let (title, instance, host) = (escape(title), escape(instance), escape(host));
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>{main}</main>\
         <footer>Answered by <b id=instance>{instance}</b> on host <b id=host>{host}</b></footer></body></html>\n"
    )
}

/// Text as HTML, safe in elements and quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2330;--dim:#5b6575;--card:#fff;--back:#eef1f6;--line:#d5dbe5;--key:#2457c5;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf4;--dim:#9aa5b8;--card:#1b212c;--back:#10141b;--line:#323b4a;--key:#7aa2ff;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:flex;flex-direction:column;align-items:center;justify-content:center;gap:1rem;padding:1rem;
background:var(--back);color:var(--ink);font:1rem/1.5 system-ui,sans-serif}
main{width:100%;max-width:26rem;background:var(--card);border:1px solid var(--line);border-radius:1rem;padding:1.75rem}
h1{margin:0 0 .75rem;font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}
p{margin:0 0 1.25rem;color:var(--dim)}
.count strong{display:block;font-size:4rem;line-height:1.1;color:var(--key);font-variant-numeric:tabular-nums}
.problem{color:var(--bad)}
label{display:block;margin-bottom:.25rem;font-weight:600}
input{width:100%;padding:.7rem .8rem;margin-bottom:1rem;border:1px solid var(--line);border-radius:.6rem;background:transparent;color:inherit;font:inherit}
button,.button{display:inline-block;padding:.7rem 1.2rem;border:1px solid var(--key);border-radius:.6rem;background:var(--key);
color:var(--card);font:inherit;font-weight:600;text-decoration:none;cursor:pointer}
.quiet{background:transparent;border-color:var(--line);color:var(--ink)}
.row{display:flex;flex-wrap:wrap;gap:.75rem}
:focus-visible{outline:3px solid var(--key);outline-offset:2px}
footer{font-size:.9rem;color:var(--dim);text-align:center;overflow-wrap:anywhere}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_person_writes_becomes_markup() {
        assert_eq!(escape("<b>\"&'"), "&lt;b&gt;&quot;&amp;&#39;");
    }
}
