//! Nothing secret stays behind: not in memory, not in files, not in messages.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use kura::apps::sealed::{
    Credentials, Damage, Machine, NewAccess, NewIds, Place, ShareIds, SystemProcesses, create_file, read_document,
    take_secrets, update, update_file,
};
use kura::base::clock::{SystemClock, Timestamp};
use kura::base::disk::RealDisk;
use kura::crypto::sharing::Field;
use kura::crypto::slots::Secret;
use zeroize::Zeroizing;

use super::support::{FIELDS, small};
use super::watching::{WANTED_LEN, count_in_freed};

/// A random text that is nowhere in memory in clear, except while it is used.
struct Masked {
    text: Vec<u8>,
    mask: Vec<u8>,
}

const LEN: usize = 48;

impl Masked {
    fn new() -> Self {
        let mut text = Zeroizing::new(vec![0; LEN]);
        kura::base::random::fill(&mut text);
        text.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
        let mut mask = vec![0; LEN];
        kura::base::random::fill(&mut mask);
        let text = text.iter().zip(&mask).map(|(text, mask)| text ^ mask).collect();
        Self { text, mask }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text[at] ^ self.mask[at]
    }

    fn write_onto(&self, out: &mut Vec<u8>) {
        out.extend((0..LEN).map(|at| self.byte(at)));
    }

    fn clear(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(LEN);
        self.write_onto(&mut text);
        text
    }

    fn json(&self) -> Zeroizing<Vec<u8>> {
        let mut json = Zeroizing::new(Vec::with_capacity(LEN + 20));
        json.extend_from_slice(b"{\"secret\":\"");
        self.write_onto(&mut json);
        json.extend_from_slice(b"\"}");
        json
    }

    fn credentials(&self) -> Credentials {
        Credentials { password: Secret::new(self.clear()), ids: ShareIds::new(&[1, 2, 5]).unwrap() }
    }

    /// Its beginning, masked, with the masks.
    fn beginning(&self) -> [(u8, u8); WANTED_LEN] {
        std::array::from_fn(|at| (self.text[at], self.mask[at]))
    }

    /// How often it stands in the bytes, or a quarter of it that does not begin in the middle.
    fn count_in(&self, bytes: &[u8]) -> usize {
        let first = self.byte(0);
        let starts = bytes.windows(LEN / 2).filter(|window| window[0] == first);
        starts.filter(|window| (0..LEN / 2).all(|at| window[at] == self.byte(at))).count()
    }
}

/// Looks through all memory of this process that is written to.
fn find_in_memory(wanted: &[(&str, &Masked)]) -> Vec<String> {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut found = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (mut at, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(buffer.len());
            // Others may have given it back meanwhile.
            if memory.read_exact_at(&mut buffer[..len], at).is_ok() {
                for (what, masked) in wanted {
                    let count = masked.count_in(&buffer[..len]);
                    found.extend((0..count).map(|_| format!("{what} at {at:x} in {line}")));
                }
            }
            at += (len - LEN.min(len / 2)) as u64;
            if len < buffer.len() {
                break;
            }
        }
        buffer.fill(0);
    }
    found
}

fn machine() -> Machine {
    Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) }
}

/// Everything that takes a password or a document, with these.
fn use_them(dir: &Path, field: Field, password: &Masked, documents: [&Masked; 2]) {
    let path = dir.join(format!("{field:?}.sealed"));
    let access = NewAccess {
        password: Secret::new(password.clear()),
        ids: NewIds::Chosen(ShareIds::new(&[1, 2, 5]).unwrap()),
        threshold: 2,
    };
    create_file(&machine(), &path, &small(field, 6), &access, &documents[0].json()).unwrap();
    drop(access);
    let credentials = password.credentials();
    update_file(&machine(), &Place::of(&path), &documents[1].json(), &credentials).unwrap();
    let found = read_document(&machine(), &path, &credentials, Damage::Refuse).unwrap();
    assert!(found.json == documents[1].json());
    let bytes = std::fs::read(&path).unwrap();
    update(&bytes, &documents[0].json(), &credentials, Timestamp::from_parts(0, 0)).unwrap();
    for (_, masked) in [("password", password), ("document", documents[0]), ("document", documents[1])] {
        for entry in walk(dir) {
            assert_eq!(masked.count_in(&std::fs::read(&entry).unwrap()), 0, "{}", entry.display());
        }
    }
}

/// A whole request, with an escape before the password so that it cannot be used as it stands.
fn take_from_request(password: &Masked, document: &Masked) {
    let mut request = Zeroizing::new(Vec::with_capacity(1000));
    request.extend_from_slice(b"{\"file\":\"f\",\"password\":\"\\u0041");
    password.write_onto(&mut request);
    request.extend_from_slice(b"\",\"ids\":[1,2,5],\"document\":");
    request.extend_from_slice(&document.json());
    request.push(b'}');
    let (rest, secrets) = take_secrets(&request).unwrap();
    assert_eq!(rest, b"{\"file\":\"f\"}");
    assert!(secrets.credentials.password.as_bytes()[1..] == *Zeroizing::new(password.clear()));
    assert!(secrets.document.as_bytes() == &document.json()[..]);
}

fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn no_password_and_no_document_stays_in_memory_or_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let (password, first, second) = (Masked::new(), Masked::new(), Masked::new());
    std::thread::scope(|scope| {
        let work = || FIELDS.iter().for_each(|field| use_them(dir.path(), *field, &password, [&first, &second]));
        scope.spawn(work).join().unwrap();
    });
    let wanted = [("the password", &password), ("the first document", &first), ("the second document", &second)];
    assert_eq!(find_in_memory(&wanted), [""; 0]);
    // It would be seen.
    let left = first.clear();
    assert!(!find_in_memory(&wanted[1..2]).is_empty());
    drop(left);
}

/// What is given back during the operations holds none of it either, not even for a moment.
#[test]
fn no_password_and_no_document_is_in_memory_that_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (password, first, second) = (Masked::new(), Masked::new(), Masked::new());
    let wanted = || [&password, &first, &second].map(Masked::beginning);
    let found = count_in_freed(wanted(), || {
        FIELDS.iter().for_each(|field| use_them(dir.path(), *field, &password, [&first, &second]));
        let wrong = first.credentials();
        let path = dir.path().join("Gf256.sealed");
        update_file(&machine(), &Place::of(&path), &second.json(), &wrong).unwrap_err();
        let mut broken = second.json();
        broken.truncate(LEN + 11);
        update_file(&machine(), &Place::of(&path), &broken, &password.credentials()).unwrap_err();
        let known = [password.credentials()];
        kura::apps::sealed::refresh_file(&machine(), &Place::of(&path), &known, true).unwrap();
        take_from_request(&password, &second);
        let changed = Secret::new(second.clear());
        kura::apps::sealed::change_password(&machine(), &Place::of(&path), &known[0], changed).unwrap();
    });
    assert_eq!(found, 0);
    // It would be seen, when a buffer is dropped and when one grows.
    assert!(count_in_freed(wanted(), || drop(first.clear())) > 0);
    let grows = || {
        let mut grows = password.clear();
        grows.reserve(1 << 20);
        zeroize::Zeroize::zeroize(&mut grows);
    };
    assert!(count_in_freed(wanted(), grows) > 0);
}

#[test]
fn messages_and_debug_forms_hold_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let password = "correct horse battery";
    let json = b"{\"key\":\"the secret itself\"}";
    create_file(&machine(), &path, &small(Field::Gf256, 6), &super::support::access(password, &[2, 5], 2), json)
        .unwrap();
    let credentials = super::support::credentials(password, &[2, 5]);
    let wrong = super::support::credentials("another horse battery", &[2, 5]);
    let mut said = vec![format!("{credentials:?}"), format!("{:?}", super::support::access(password, &[2, 5], 2))];
    let errors = [
        read_document(&machine(), &path, &wrong, Damage::Refuse).map(|_| ()).unwrap_err(),
        update_file(&machine(), &Place::of(&path), b"{\"the secret itself\":1,}", &credentials)
            .map(|_| ())
            .unwrap_err(),
        update_file(&machine(), &Place::of(&path), &[b'x'; 5000], &credentials).map(|_| ()).unwrap_err(),
    ];
    said.extend(errors.iter().flat_map(|error| [format!("{error:?}"), error.to_string()]));
    for said in said {
        assert!(!said.contains("horse") && !said.contains("secret itself") && !said.contains("[2, 5]"), "{said}");
    }
}
