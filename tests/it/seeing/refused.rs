//! Who is kept out, and from what.

use serde_json::{Value, json};

use super::rig::{Web, fill};
use crate::cli::support::{Home, gone_within, signal};

const SOON: std::time::Duration = std::time::Duration::from_secs(120);

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body:?}"))
}

#[test]
fn nobody_gets_in_without_the_session_or_from_another_page() {
    let home = Home::new();
    let store = home.store("store");
    let web = Web::start(&home, &store);
    // The page itself is no secret, and says what may run in it.
    let page = web.get("/", "");
    assert_eq!(page.status, 200, "{page:?}");
    for header in ["content-security-policy: default-src 'none'; script-src 'self'", "nosniff", "x-frame-options: deny"]
    {
        assert!(page.head.contains(header), "{header}: {page:?}");
    }
    assert!(page.head.contains("cache-control: no-store") && !page.head.contains("set-cookie"), "{page:?}");
    // Nothing without a session; the token opens one, once.
    assert_eq!(web.get("/api/about", "").status, 401);
    assert_eq!(web.get("/api/file?version=latest&path=x", "").status, 401);
    let wrong = web.post("/api/session", "", &json!({ "token": "0".repeat(64) }));
    assert_eq!((wrong.status, wrong.head.contains("set-cookie")), (403, false), "{wrong:?}");
    let cookie = web.session();
    let again = web.post("/api/session", "", &json!({ "token": web.token() }));
    assert_eq!((again.status, again.head.contains("set-cookie")), (403, false), "{again:?}");
    let with = format!("Cookie: {cookie}\r\n");
    assert_eq!(web.get("/api/about", &with).status, 200);
    let (front, last) = cookie.split_at(cookie.len() - 1);
    let other = if last == "0" { "1" } else { "0" };
    assert_eq!(web.get("/api/about", &format!("Cookie: {front}{other}\r\n")).status, 401);
    // Other names of this machine, and other pages, even with the cookie.
    let port = web.host.rsplit(':').next().unwrap();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "evil.example".to_owned()] {
        let answer = web.raw(&format!("GET /api/about HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{with}\r\n"));
        assert_eq!(answer.status, 421, "{host}: {answer:?}");
    }
    for from in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(web.get("/api/about", &format!("{with}{from}")).status, 403, "{from}");
        let answer = web.post_with("/api/ask", &format!("{with}{from}"), &json!({ "op": "snapshot" }));
        assert_eq!(answer.status, 403, "{from}: {answer:?}");
    }
    let silent = web.post_with("/api/ask", &with, &json!({ "op": "snapshot" }));
    assert_eq!(silent.status, 403, "a change says where it comes from: {silent:?}");
    // It listens on the loopback address alone.
    let open = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let here = format!("0100007F:{:04X}", port.parse::<u16>().unwrap());
    assert!(open.contains(&here) && !open.contains(&format!("00000000:{:04X}", port.parse::<u16>().unwrap())));
    // Ends when told to, and gives the workspace back.
    let pid = web.child.0.id().try_into().unwrap();
    signal(pid, nix::sys::signal::Signal::SIGTERM);
    assert!(gone_within(pid, SOON));
    home.ok(&store, ["log"]);
}

#[test]
fn nothing_outside_of_the_workspace_is_reached() {
    let home = Home::new();
    let store = home.store("store");
    let mount = home.mount(&store, "work");
    fill(&home, &mount);
    let web = Web::start(&home, &mount.path);
    let cookie = web.session();
    let newest = parsed(&web.post("/api/ask", &cookie, &json!({ "op": "show", "version": "latest" })).body);
    let version = newest["data"]["version"]["id"].as_str().unwrap();
    let with = format!("Cookie: {cookie}\r\n");
    let read = |version: &str, path: &str| web.get(&format!("/api/file?version={version}&path={path}"), &with);
    let notes = read(version, "notes.txt");
    assert_eq!((notes.status, notes.body.as_str()), (200, "alpha\nbetter\ngamma\n"));
    assert!(notes.head.contains("attachment") && notes.head.contains("sandbox"), "{notes:?}");
    for path in [
        "out",
        "outdir/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "inner/../../x",
        "%2fetc%2fpasswd",
        "inner",
        "no%00name",
        "",
    ] {
        let answer = read(version, path);
        assert!([400, 422].contains(&answer.status) && !answer.body.contains("root:"), "{path}: {answer:?}");
    }
    for wrong in ["..", "..%2f..", "latest", "latest%2f..%2f..%2f..%2fctl", "%2e%2e%2f%2e%2e%2fctl"] {
        assert_eq!(read(wrong, "run").status, 400, "{wrong}");
    }
    for path in ["..", "../..", "outdir", "notes.txt"] {
        let answer = web.post("/api/list", &cookie, &json!({ "version": version, "path": path }));
        assert!([400, 422].contains(&answer.status), "{path}: {answer:?}");
    }
    // What the page may not ask for.
    let denied = [
        json!({ "op": "stop" }),
        json!({ "op": "export", "version": "latest", "to": "/tmp/x" }),
        json!({ "op": "leave", "wait_ms": 0 }),
        json!({ "op": "gc", "delete": true }),
        json!({ "op": "forget", "keep": { "last": 1 }, "mode": "apply" }),
        json!({ "op": "forget", "keep": { "last": 1 } }),
        json!({ "op": "repair", "cut": true }),
        json!({ "op": "profile", "args": { "op": "list" } }),
        json!({ "op": "no-such" }),
        json!([1, 2]),
    ];
    for request in denied {
        let answer = web.post("/api/ask", &cookie, &request);
        assert!([400, 403].contains(&answer.status), "{request}: {answer:?}");
    }
    let large = json!({ "op": "find", "pattern": "x".repeat(2 << 20) });
    let answer = web.post("/api/ask", &cookie, &large);
    assert!([413, 0].contains(&answer.status), "{answer:?}");
    assert_eq!(read(version, "notes.txt").status, 200, "it goes on");
}
