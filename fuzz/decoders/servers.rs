//! What servers of others answer, and what strangers seal with a shared key.

use std::convert::Infallible;

use kura::apps::batch::{
    Code, Line, dav_name, extensions, facts_line, ftp_meaning, ftp_time, list_line, read_answer, read_multistatus,
    read_names,
};
use kura::crypto::SharedKey;

use super::Decoder;

/// All of them.
pub fn decoders() -> Vec<Decoder> {
    let multistatus = br#"<?xml version="1.0"?><d:multistatus xmlns:d="DAV:"><d:response><d:href>/a%20b</d:href>
        <d:propstat><d:prop><d:getcontentlength>5</d:getcontentlength><d:getetag>"x"</d:getetag>
        <d:getlastmodified>Mon, 12 Jan 1998 09:25:56 GMT</d:getlastmodified><d:resourcetype/></d:prop>
        <d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>"#;
    let listing = "type=file;size=5;modify=20260101000000.5;unix.mode=0644; a name\n\
                   -rw-r--r-- 1 user group 1234 Nov 5 13:46 name\n10-19-20  03:19PM  <DIR>  name\ntotal 5\n";
    let (number, text) =
        (|number: u32| number.to_be_bytes(), |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat());
    // One name with its long form, and attributes: size, owners, mode and times.
    let attrs = [&number(0xf)[..], &5_u64.to_be_bytes(), &[0; 8], &number(0o100_644), &[0; 8]].concat();
    let names = [&number(1)[..], &text(b"name"), &text(b"-rw name"), &attrs].concat();
    let greeting = [&number(3)[..], &text(b"posix-rename@openssh.com"), &text(b"1")].concat();
    let shared = "A".repeat(43) + "=";
    let key = SharedKey::from_text(&shared).unwrap();
    let sealed = key.seal("name", b"text").into_bytes();
    vec![
        Decoder::checked("webdav-multistatus", multistatus, |bytes| {
            let mut found = 0;
            let read = read_multistatus(bytes, &mut |resource| {
                let name = dav_name(b"/", &resource.path);
                assert!(name.is_none_or(|name| !name.is_empty() && name.len() < resource.path.len()));
                found += usize::from(name.is_some());
                Ok::<_, Infallible>(())
            });
            read.is_ok() && found > 0
        }),
        Decoder::checked("ftp-answer", b"213 20260101000000.5\n550 \xc4x: No such file or directory\n", |bytes| {
            let (mut times, mut refusals) = (0, 0);
            for answer in bytes.split(|byte| *byte == b'\n') {
                times += u32::from(ftp_time(answer).is_some());
                let status =
                    answer.first_chunk().and_then(|digits: &[u8; 3]| std::str::from_utf8(digits).ok()?.parse().ok());
                let (code, words) = ftp_meaning(status.unwrap_or(0), answer);
                assert!(!words.contains(['\r', '\n']));
                refusals += u32::from(code == Some(Code::Vanished));
            }
            times > 0 && refusals > 0
        }),
        Decoder::checked("ftp-listing", listing, |bytes| {
            let is_known = |line: &[u8]| {
                let (facts, listed) = (facts_line(line), list_line(line));
                !matches!(facts, Line::Unknown) || !matches!(listed, Line::Unknown)
            };
            bytes.split(|byte| *byte == b'\n').fold(true, |all, line| all & (line.is_empty() || is_known(line)))
        }),
        Decoder::checked("sftp-names", names, |bytes| {
            let mut found = Vec::new();
            let read = read_names(bytes, &mut found);
            assert!(read.is_none() || found.len() <= bytes.len());
            read.is_some()
        }),
        Decoder::checked("sftp-greeting", greeting, |bytes| extensions(bytes).is_some()),
        Decoder::checked("redis-answer", "*3\r\n$1\r\na\r\n$-1\r\n*1\r\n:5\r\n", |mut bytes| {
            read_answer(&mut bytes).is_ok()
        }),
        Decoder::checked("shared-envelope", sealed, move |bytes| key.open("name", bytes).is_some()),
        Decoder::checked("shared-key", shared, |bytes| SharedKey::from_text(&String::from_utf8_lossy(bytes)).is_some()),
    ]
}
