//! What programs do together: many writers of one database or log, trees that move, watchers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::inotify;

use super::guard::{Place, python, sh};

/// Children that are killed when the test ends, however it ends.
struct Killed(Vec<Child>);

impl Killed {
    /// `count` Python programs that know their number as `sys.argv[1]`.
    fn start(dir: &Path, count: usize, program: &str) -> Self {
        let start = |number: usize| {
            let mut command = Command::new("python3");
            command.args(["-c", program, &number.to_string()]).current_dir(dir);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
        };
        Self((0..count).map(start).collect())
    }

    fn kill(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
        }
        for child in &mut self.0 {
            child.wait().ok();
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn databases_outlive_the_death_of_their_writers() {
    let place = Place::new();
    let mut mount = place.mount();
    // Each says of a row that it is in only after the commit returned.
    let writer = |mode: &str| {
        format!(
            "import sqlite3, sys\n\
             c = sqlite3.connect('{mode}.db', timeout=60, isolation_level=None)\n\
             c.execute('pragma journal_mode={mode}'); c.execute('pragma synchronous=full')\n\
             c.execute('create table if not exists t(i integer primary key, w integer, n integer, v blob)')\n\
             for n in range(10**9):\n\
             \x20c.execute('begin immediate')\n\
             \x20i = c.execute('insert into t(w, n, v) values(?, ?, randomblob(3000))', (sys.argv[1], n)).lastrowid\n\
             \x20c.execute('update t set v = randomblob(1000) where i = ?', (i // 2,))\n\
             \x20c.execute('commit'); print(i, flush=True)\n"
        )
    };
    let check = |dir: &Path, mode: &str, rows: &[String]| {
        let program = format!(
            "import sqlite3; c = sqlite3.connect('{mode}.db')\n\
             assert c.execute('pragma integrity_check').fetchall() == [('ok',)]\n\
             have = {{i for (i,) in c.execute('select i from t')}}\n\
             assert not {{{rows}}} - have",
            rows = rows.join(",")
        );
        python(dir, &program);
    };
    for mode in ["wal", "delete"] {
        let mut rows = Vec::new();
        for _ in 0..3 {
            let mut writers = Killed::start(mount.path(), 3, &writer(mode));
            // One of them is followed for a while; then all die in the middle of something.
            let mut said: Vec<_> =
                writers.0.iter_mut().map(|child| BufReader::new(child.stdout.take().unwrap())).collect();
            rows.extend(said[0].by_ref().lines().take(15).map(Result::unwrap));
            writers.kill();
            // A line that a kill cut off has no end.
            let rest = said.iter_mut().flat_map(|said| said.lines().map_while(Result::ok).collect::<Vec<_>>());
            rows.extend(rest);
            check(mount.path(), mode, &rows);
        }
        assert!(rows.len() >= 45);
        mount.end();
        mount = place.mount();
        check(mount.path(), mode, &rows);
    }
    mount.end();
}

#[test]
fn processes_that_append_to_one_log_lose_nothing_and_tear_nothing() {
    const WRITERS: usize = 4;
    const LINES: usize = 400;
    let place = Place::new();
    let mount = place.mount();
    let program = format!(
        "import os, sys\n\
         f = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
         for n in range({LINES}):\n\
         \x20line = b'%s %d %s.\\n' % (sys.argv[1].encode(), n, b'x' * (n * 37 % 5000))\n\
         \x20assert os.write(f, line) == len(line)\n\
         \x20if n % 50 == 0: os.fsync(f)\n"
    );
    let mut writers = Killed::start(mount.path(), WRITERS, &program);
    for child in &mut writers.0 {
        assert!(child.wait().unwrap().success());
    }
    let mut next = [0; WRITERS];
    for line in BufReader::new(File::open(mount.at("log")).unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let (writer, number): (usize, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        assert_eq!((number, words[2].len()), (next[writer], number * 37 % 5000 + 1), "{writer}");
        next[writer] += 1;
    }
    assert_eq!(next, [LINES; WRITERS]);
    mount.end();
}

#[test]
fn big_trees_move_and_what_is_newer_is_found() {
    let place = Place::new();
    let mount = place.mount();
    let outside = place.path().join("outside");
    fs::create_dir(&outside).unwrap();
    sh(
        &outside,
        "for d in $(seq 40); do mkdir -p t/$d/deep; for i in $(seq 25); do echo $d $i > t/$d/deep/$i; done; done; \
         ln t/1/deep/1 t/2/hard; ln -s ../1 t/2/soft; truncate -s 9M t/sparse; echo end >> t/sparse",
    );
    let list = |dir: &Path| {
        sh(dir, "find . ! -type d -printf '%p %y %m %n %s %T@ %l\\n' | sort; find . -type f | sort | xargs sha256sum")
    };
    let before = list(&outside.join("t"));
    // From one file system to another it is a copy, inside of one a rename.
    sh(place.path(), "mv outside/t mnt/t; test ! -e outside/t");
    assert_eq!(list(&mount.at("t")), before);
    sh(mount.path(), "mkdir into; mv t into/u; mv into/u/7 into/u/8/deep/moved; mv into/u/8/deep/moved into/u/7");
    assert_eq!(list(&mount.at("into/u")), before);
    sh(mount.path(), "touch mark; sleep 0.02; echo newer >> into/u/3/deep/3; touch into/u/4; mkdir into/u/5/new");
    let newer = sh(mount.path(), "find into -newer mark | sort");
    assert_eq!(newer, "into/u/3/deep/3\ninto/u/4\ninto/u/5\ninto/u/5/new\n");
    sh(
        mount.path(),
        "find into -newer mark ! -newer mark | cmp - /dev/null; rmdir into/u/5/new; mv into/u ../outside/t",
    );
    assert_eq!(fs::read_dir(mount.at("into")).unwrap().count(), 0);
    sh(&outside, "test $(find t -type f | wc -l) = 1002");
    mount.end();
}

#[test]
fn sparse_files_stay_sparse_when_they_are_copied() {
    let place = Place::new();
    let mount = place.mount();
    sh(
        mount.path(),
        "truncate -s 40M holes; for at in 3 17 39; do echo data | dd of=holes bs=1M seek=$at conv=notrunc status=none; done; \
         sync holes; for how in auto always never; do cp --sparse=$how holes $how; cmp holes $how; done",
    );
    let blocks = |name: &str| fs::metadata(mount.at(name)).unwrap().blocks();
    for name in ["holes", "auto", "always"] {
        assert!(blocks(name) <= 3 * 2048, "{name} has {} blocks", blocks(name));
    }
    mount.end();
    let mount = place.mount();
    sh(
        mount.path(),
        "cmp holes auto; cmp holes always; cmp holes never; cp --sparse=auto holes again; cmp holes again",
    );
    let (data, hole) = (rustix::fs::SeekFrom::Data(0), rustix::fs::SeekFrom::Hole(0));
    let file = File::open(mount.at("again")).unwrap();
    assert_eq!(rustix::fs::seek(&file, hole).unwrap(), 0);
    let at = rustix::fs::seek(&file, data).unwrap();
    assert!((2 << 20..=3 << 20).contains(&at), "{at}");
    drop(file);
    mount.end();
}

#[test]
fn watchers_hear_of_local_changes() {
    let place = Place::new();
    let mount = place.mount();
    fs::create_dir(mount.at("d")).unwrap();
    let watcher = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    let wanted = inotify::WatchFlags::ALL_EVENTS & !(inotify::WatchFlags::ACCESS | inotify::WatchFlags::OPEN);
    inotify::add_watch(&watcher, mount.at("d"), wanted).unwrap();
    sh(
        &mount.at("d"),
        "echo x > f; echo y >> f; chmod 600 f; ln f g; mv f h; mkdir s; rmdir s; truncate -s 0 h; rm h g",
    );
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watcher, &mut buffer);
    let mut heard = Vec::new();
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = event.events() & !inotify::ReadFlags::ISDIR;
        let line = format!("{} {name}", kind.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("+"));
        if heard.last() != Some(&line) {
            heard.push(line);
        }
    }
    let expected = "CREATE f, MODIFY f, CLOSE_WRITE f, MODIFY f, CLOSE_WRITE f, ATTRIB f, CREATE g, MOVED_FROM f, MOVED_TO h, \
                    CREATE s, DELETE s, MODIFY h, CLOSE_WRITE h, DELETE h, DELETE g";
    // The link counts of files outside the watched directory are not asked for.
    let told: Vec<&String> = heard.iter().filter(|line| !line.starts_with("ATTRIB") || line.ends_with('f')).collect();
    let mut at = told.iter();
    for event in expected.split(", ").map(str::trim) {
        assert!(at.any(|line| line.as_str() == event), "{event} was not heard in its turn: {told:?}");
    }
    drop(watcher);
    mount.end();
}

#[test]
fn editors_save_in_their_own_ways() {
    let place = Place::new();
    let mount = place.mount();
    python(
        mount.path(),
        r##"
import os
def put(path, data, flags, sync):
    f = os.open(path, os.O_WRONLY | flags, 0o666); os.write(f, data); sync(f); os.close(f)
def nothing(f): pass
def emacs(path, data):  # a lock, an automatic save, a backup by renaming, a new file under the old name
    os.symlink("user@host.1:2", ".#" + path); put("#%s#" % path, data, os.O_CREAT | os.O_TRUNC, nothing)
    mode = os.stat(path).st_mode & 0o7777
    os.rename(path, path + "~"); put(path, data, os.O_CREAT | os.O_EXCL, os.fsync); os.chmod(path, mode)
    os.unlink("#%s#" % path); os.unlink(".#" + path)
def emacs_copying(path, data):  # the backup is a copy, and the file is written over
    put(path + "~", open(path, "rb").read(), os.O_CREAT | os.O_TRUNC, nothing); put(path, data, os.O_TRUNC, os.fsync)
def vscode(path, data):  # opened without cutting, then cut and written
    f = os.open(path, os.O_RDWR); os.ftruncate(f, 0); os.pwrite(f, data, 0); os.fdatasync(f); os.close(f)
def atomic(path, data):  # what gedit, jetbrains and many others do
    mode = os.stat(path).st_mode & 0o7777
    put(path + ".tmp", data, os.O_CREAT | os.O_EXCL, os.fsync); os.chmod(path + ".tmp", mode); os.rename(path + ".tmp", path)
    d = os.open(".", os.O_RDONLY); os.fsync(d); os.close(d)
for save in (emacs, emacs_copying, vscode, atomic):
    name = save.__name__
    with open(name, "wb") as f: f.write(b"the beginning")
    os.chmod(name, 0o640); last = b"the beginning"
    for number in range(40):
        held = open(name, "rb"); data = b"%d\n" % number * (number * 211 % 3000)
        save(name, data)
        assert open(name, "rb").read() == data and os.stat(name).st_size == len(data) and os.stat(name).st_mode & 0o7777 == 0o640
        if save is atomic: assert held.read() == last
        if save in (emacs, emacs_copying): assert open(name + "~", "rb").read() == last
        held.close(); last = data
assert sorted(os.listdir(".")) == sorted(["emacs", "emacs~", "emacs_copying", "emacs_copying~", "vscode", "atomic"]), os.listdir(".")
"##,
    );
    let sums = |mount: &super::guard::Mount| sh(mount.path(), "sha256sum * && stat -c '%n %a %s' *");
    let before = sums(&mount);
    mount.end();
    let mount = place.mount();
    assert_eq!(sums(&mount), before);
    mount.end();
}
