//! The memory of what was processed in a Redis server (RESP2), names and values sealed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::error::{BatchError, Result};
use super::key_value::{EachValue, KeyValue};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest value that is taken, in bytes, and most values of one answer.
const VALUE_LEN_MAX: usize = 1 << 20;
const VALUES_MAX: usize = 1 << 16;
const LINE_LEN_MAX: u64 = 64 * 1024;
/// Deepest nesting of an answer, and most bytes that it takes in memory.
const DEPTH_MAX: u32 = 4;
const ANSWER_LEN_MAX: usize = 64 << 20;
const SCAN_COUNT: &[u8] = b"500";
/// Most answers that a look through all names takes: enough for five thousand million of them.
const SCANS_MAX: u32 = 10_000_000;
const TRIES_MAX: u32 = 3;

/// A Redis server; names begin with those of kura, so that it may hold other things as well.
pub struct RedisKeyValue {
    host: String,
    port: u16,
    database: u32,
    password: Option<Zeroizing<String>>,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

const PREFIX: &[u8] = b"kura:";

/// What a Redis server answers.
#[derive(Debug)]
pub enum Answer {
    /// A number or word that only says that it was done.
    Done,
    /// What went wrong there.
    Error(String),
    /// A value, if there is one.
    Bytes(Option<Vec<u8>>),
    /// Several answers.
    Many(Vec<Answer>),
}

impl RedisKeyValue {
    /// From `redis://HOST[:PORT][/DATABASE]`; the server is asked whether it is there.
    pub fn open(url: &str, password: Option<Zeroizing<String>>) -> Result<Self> {
        let unusable = || BatchError::Job("the memory is written redis://HOST:PORT/DATABASE".to_owned());
        let rest = url.strip_prefix("redis://").ok_or_else(unusable)?;
        if rest.contains('@') {
            return Err(BatchError::Job("a password does not belong in an address".to_owned()));
        }
        let (host, database) = rest.split_once('/').unwrap_or((rest, "0"));
        let (host, port) = host.rsplit_once(':').unwrap_or((host, "6379"));
        let port = port.parse().map_err(|_| unusable())?;
        let database = if database.is_empty() { 0 } else { database.parse().map_err(|_| unusable())? };
        let this = Self { host: host.to_owned(), port, database, password, connection: Mutex::default() };
        this.ask(&[vec![b"PING".to_vec()]])?;
        Ok(this)
    }

    fn failed(&self, reason: impl std::fmt::Display) -> BatchError {
        BatchError::Memory(format!("redis://{}:{}: {reason}", self.host, self.port))
    }

    fn connect(&self) -> Result<BufReader<TcpStream>> {
        let failed = |error: std::io::Error| self.failed(error);
        let mut last = self.failed("the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
                    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
                    stream.set_nodelay(true).map_err(failed)?;
                    let mut stream = BufReader::new(stream);
                    let mut hello = Vec::new();
                    if let Some(password) = &self.password {
                        hello.push(vec![b"AUTH".to_vec(), password.as_bytes().to_vec()]);
                    }
                    hello.push(vec![b"SELECT".to_vec(), self.database.to_string().into_bytes()]);
                    self.exchange(&mut stream, &hello)?;
                    return Ok(stream);
                }
                Err(error) => last = self.failed(error),
            }
        }
        Err(last)
    }

    /// Sends all commands at once, and returns their answers. All of ours may simply be repeated.
    fn ask(&self, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Answer>> {
        let mut connection = self.connection.lock();
        let mut tries = 1;
        loop {
            let outcome = match connection.take() {
                Some(stream) => Ok(stream),
                None => self.connect(),
            }
            .and_then(|mut stream| self.exchange(&mut stream, commands).map(|answers| (stream, answers)));
            match outcome {
                Ok((stream, answers)) => {
                    *connection = Some(stream);
                    return Ok(answers);
                }
                Err(error) if tries == TRIES_MAX => return Err(error),
                Err(error) => tracing::info!(component = "status_memory", backend = "redis", "trying again: {error}"),
            }
            tries += 1;
        }
    }

    fn exchange(&self, stream: &mut BufReader<TcpStream>, commands: &[Vec<Vec<u8>>]) -> Result<Vec<Answer>> {
        let mut request = Vec::new();
        for command in commands {
            request.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for word in command {
                request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                request.extend_from_slice(word);
                request.extend_from_slice(b"\r\n");
            }
        }
        stream.get_mut().write_all(&request).map_err(|error| self.failed(error))?;
        let mut answers = Vec::with_capacity(commands.len());
        for _ in commands {
            match read_answer(stream).map_err(|reason| self.failed(reason))? {
                Answer::Error(words) => return Err(self.failed(words)),
                answer => answers.push(answer),
            }
        }
        Ok(answers)
    }

    fn values(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        let mut command = vec![b"MGET".to_vec()];
        command.extend(keys.iter().cloned());
        match self.ask(&[command])?.pop() {
            Some(Answer::Many(found)) if found.len() == keys.len() => found
                .into_iter()
                .map(|answer| match answer {
                    Answer::Bytes(value) => Ok(value),
                    _ => Err(self.failed("the answer makes no sense")),
                })
                .collect(),
            _ => Err(self.failed("the answer makes no sense")),
        }
    }
}

fn full(key: &[u8]) -> Vec<u8> {
    [PREFIX, key].concat()
}

/// Reads one answer; else why it cannot be read.
pub fn read_answer(stream: &mut impl BufRead) -> std::result::Result<Answer, String> {
    let mut left = ANSWER_LEN_MAX;
    answer_in(stream, 0, &mut left)
}

/// Reads an answer within another, of which `left` bytes may still be taken.
fn answer_in(stream: &mut impl BufRead, depth: u32, left: &mut usize) -> std::result::Result<Answer, String> {
    let nonsense = || "the answer makes no sense".to_owned();
    let failed = |error: std::io::Error| error.to_string();
    let mut line = Vec::new();
    stream.take(LINE_LEN_MAX).read_until(b'\n', &mut line).map_err(failed)?;
    let line = line.strip_suffix(b"\r\n").ok_or("the connection was lost")?;
    let (kind, rest) = line.split_first().ok_or_else(nonsense)?;
    let text = || std::str::from_utf8(rest).map_err(|_| nonsense());
    let number = || text()?.parse::<i64>().map_err(|_| nonsense());
    let bounded = |number: i64, max: usize| usize::try_from(number).ok().filter(|len| *len <= max);
    let mut take = |len: usize| {
        *left = left.checked_sub(len).ok_or("the answer is too long")?;
        Ok::<_, String>(())
    };
    take(size_of::<Answer>() + line.len())?;
    match kind {
        b'+' | b':' => Ok(Answer::Done),
        b'-' => Ok(Answer::Error(text()?.to_owned())),
        b'$' if number()? < 0 => Ok(Answer::Bytes(None)),
        b'$' => {
            let len = bounded(number()?, VALUE_LEN_MAX).ok_or_else(nonsense)?;
            take(len)?;
            let mut bytes = vec![0; len + 2];
            stream.read_exact(&mut bytes).map_err(failed)?;
            bytes.truncate(len);
            Ok(Answer::Bytes(Some(bytes)))
        }
        b'*' if depth < DEPTH_MAX => {
            let count = bounded(number()?.max(0), VALUES_MAX).ok_or_else(nonsense)?;
            (0..count)
                .map(|_| answer_in(stream, depth + 1, left))
                .collect::<std::result::Result<_, _>>()
                .map(Answer::Many)
        }
        _ => Err(nonsense()),
    }
}

impl KeyValue for RedisKeyValue {
    fn get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.values(&keys.iter().map(|key| full(key)).collect::<Vec<_>>())
    }

    fn write(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let command = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| match value {
            Some(value) => vec![b"SET".to_vec(), full(key), value.clone()],
            None => vec![b"DEL".to_vec(), full(key)],
        };
        // Together or not at all, also when the connection breaks off in between.
        let mut commands = vec![vec![b"MULTI".to_vec()]];
        commands.extend(changes.iter().map(command));
        commands.push(vec![b"EXEC".to_vec()]);
        match self.ask(&commands)?.pop() {
            Some(Answer::Many(_)) => Ok(()),
            _ => Err(self.failed("the server did not carry out what it was asked for")),
        }
    }

    /// As durable as the server is set up to be.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn scan(&self, prefix: &[u8], each: &mut EachValue<'_>) -> Result<()> {
        let mut cursor = b"0".to_vec();
        // Prefixes are words and a colon, which no pattern of Redis takes for anything else.
        let pattern = [&full(prefix), &b"*"[..]].concat();
        for _ in 0..SCANS_MAX {
            let scan = [b"SCAN".to_vec(), cursor.clone(), b"MATCH".to_vec(), pattern.clone()];
            let command = [&scan[..], &[b"COUNT".to_vec(), SCAN_COUNT.to_vec()]].concat();
            let Some(Answer::Many(mut parts)) = self.ask(&[command])?.pop() else {
                return Err(self.failed("the answer makes no sense"));
            };
            let (Some(Answer::Many(found)), Some(Answer::Bytes(Some(next)))) = (parts.pop(), parts.pop()) else {
                return Err(self.failed("the answer makes no sense"));
            };
            let keys: Vec<Vec<u8>> =
                found.into_iter().filter_map(|key| if let Answer::Bytes(key) = key { key } else { None }).collect();
            if !keys.is_empty() {
                for (key, value) in keys.iter().zip(self.values(&keys)?) {
                    let name =
                        key.strip_prefix(PREFIX).ok_or_else(|| self.failed("it names what was not asked for"))?;
                    if let Some(value) = value
                        && !each(name, value)?
                    {
                        return Ok(());
                    }
                }
            }
            if next == b"0" {
                return Ok(());
            }
            if next == cursor {
                return Err(self.failed("the server does not get on with naming what it holds"));
            }
            cursor = next;
        }
        Err(self.failed("the server does not end naming what it holds"))
    }
}
