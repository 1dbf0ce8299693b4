//! The files that the page consists of. They are part of the program.

/// A file of the page: its path, its media type, its text.
type Asset = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

const ASSETS: &[Asset] = &[
    ("/", HTML, include_str!("assets/index.html")),
    ("/style.css", CSS, include_str!("assets/style.css")),
    ("/app.js", JS, include_str!("assets/app.js")),
    ("/api.js", JS, include_str!("assets/api.js")),
    ("/dom.js", JS, include_str!("assets/dom.js")),
    ("/timeline.js", JS, include_str!("assets/timeline.js")),
    ("/version.js", JS, include_str!("assets/version.js")),
    ("/files.js", JS, include_str!("assets/files.js")),
    ("/compare.js", JS, include_str!("assets/compare.js")),
    ("/history.js", JS, include_str!("assets/history.js")),
    ("/conflicts.js", JS, include_str!("assets/conflicts.js")),
    ("/status.js", JS, include_str!("assets/status.js")),
    ("/space.js", JS, include_str!("assets/space.js")),
    ("/icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// The file at a path: its media type and its text.
pub fn find(path: &str) -> Option<(&'static str, &'static str)> {
    let path = if path == "/index.html" { "/" } else { path };
    ASSETS.iter().find(|(known, ..)| *known == path).map(|(_, media, text)| (*media, *text))
}
