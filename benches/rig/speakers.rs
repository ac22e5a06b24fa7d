//! A crowd of BGP speakers, in one process: the other side of every daemon that `benches/macro` measures.
//!
//! `speakers gen AS PEERS PEER-AS` waits on PEERS addresses (198.19.0.1 and on) to be dialled by the daemon, which is of AS, each speaker of AS PEER-AS
//! (`each`: 65001, 65002 …), and does what lines on standard input say; each is answered by a line of JSON when it is done. `speakers relay AS PEERS`
//! dials as many and passes every UPDATE on to all others as it is: a route reflector that keeps no routes, the floor under every daemon.
//!
//! | command | what |
//! |---|---|
//! | `up LIMIT` | waits for all sessions |
//! | `announce WHO FIRST LENGTH COUNT PER EXPECT LIMIT` | WHO (a number, or `all`) announces COUNT prefixes, PER of them with equal attributes; of `all` each has COUNT of its own. Ends when EXPECT prefixes have arrived at others, or after LIMIT seconds |
//! | `withdraw WHO FIRST LENGTH COUNT EXPECT LIMIT` | the same the other way |
//! | `churn WHO FIRST LENGTH TIMES EXPECT` | announces and withdraws one prefix in turn, and waits each time until it has arrived at EXPECT others |
//!
//! Threads that block, nothing but the standard library: one for each session, which counts what comes.
#![deny(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const SOURCES: u32 = 0xc613_0001;
const HOLD: u16 = 90;
const STACK: usize = 96 * 1024;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xff; 16];
    out.extend(((19 + body.len()) as u16).to_be_bytes());
    out.push(kind);
    out.extend(body);
    out
}

fn open(asn: u32, id: Ipv4Addr) -> Vec<u8> {
    // IPv4 unicast, route refresh, AS numbers of four octets
    let mut caps = vec![1, 4, 0, 1, 0, 1, 2, 0, 65, 4];
    caps.extend(asn.to_be_bytes());
    let mut body = vec![4];
    body.extend((asn.min(65535) as u16).to_be_bytes());
    body.extend(HOLD.to_be_bytes());
    body.extend(id.octets());
    body.extend([caps.len() as u8 + 2, 2, caps.len() as u8]);
    body.extend(caps);
    message(1, &body)
}

/// Reads one message: kind and body.
fn read(stream: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 19];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; (u16::from_be_bytes([head[16], head[17]]) as usize).saturating_sub(19)];
    stream.read_exact(&mut body)?;
    Ok((head[18], body))
}

fn handshake(stream: &mut TcpStream, asn: u32, id: Ipv4Addr) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(&open(asn, id))?;
    let mut got = (0, vec![]);
    for kind in [1, 4] {
        got = read(stream)?;
        if got.0 != kind {
            return Err(std::io::Error::other(format!("message {} {:02x?}", got.0, got.1)));
        }
        if kind == 1 {
            stream.write_all(&message(4, &[]))?;
        }
    }
    drop(got);
    Ok(())
}

fn count(mut list: &[u8]) -> u64 {
    let mut n = 0;
    while let Some(length) = list.first() {
        list = list.get(1 + (*length as usize).div_ceil(8)..).unwrap_or(&[]);
        n += 1;
    }
    n
}

/// What has arrived, of all sessions together, since it was last set to nothing.
#[derive(Default)]
struct Tally {
    came: AtomicU64,
    gone: AtomicU64,
    /// How many are waited for, and when they were complete.
    target: AtomicU64,
    done: Mutex<Option<Instant>>,
    told: Condvar,
    /// A session more is up.
    changed: Condvar,
}

impl Tally {
    fn update(&self, body: &[u8]) {
        let size = u16::from_be_bytes([body[0], body[1]]) as usize;
        let attributes = u16::from_be_bytes([body[2 + size], body[3 + size]]) as usize;
        let gone = count(&body[2..2 + size]);
        let came = count(&body[4 + size + attributes..]);
        let target = self.target.load(Ordering::Relaxed);
        for (sum, more) in [(&self.came, came), (&self.gone, gone)] {
            if more > 0 {
                let before = sum.fetch_add(more, Ordering::Relaxed);
                if before < target && before + more >= target {
                    *self.done.lock().unwrap() = Some(Instant::now());
                    self.told.notify_all();
                }
            }
        }
    }

    fn expect(&self, target: u64) {
        self.target.store(target, Ordering::Relaxed);
        self.came.store(0, Ordering::Relaxed);
        self.gone.store(0, Ordering::Relaxed);
        *self.done.lock().unwrap() = None;
    }

    /// When the target was met.
    fn wait(&self, limit: Duration) -> Option<Instant> {
        let held = self.done.lock().unwrap();
        *self.told.wait_timeout_while(held, limit, |done| done.is_none()).unwrap().0
    }
}

/// By the speaker's number.
type Sessions = Arc<Mutex<BTreeMap<u32, Arc<Mutex<TcpStream>>>>>;

fn keepalives(sessions: &Sessions) {
    let sessions = sessions.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(u64::from(HOLD) / 3));
            for session in sessions.lock().unwrap().values() {
                let _ = session.lock().unwrap().write_all(&message(4, &[]));
            }
        }
    });
}

struct Crowd {
    asns: Box<dyn Fn(u32) -> u32 + Send + Sync>,
    local: u32,
    peers: u32,
    sessions: Sessions,
    tally: Arc<Tally>,
}

impl Crowd {
    fn source(peer: u32) -> Ipv4Addr {
        Ipv4Addr::from(SOURCES + peer)
    }

    /// Takes calls for ever; which speaker is meant is told by the address that was dialled.
    fn listen(self: &Arc<Self>) -> std::io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 179))?;
        let crowd = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let crowd = crowd.clone();
                let spawned = std::thread::Builder::new().stack_size(STACK).spawn(move || {
                    if let Err(error) = crowd.serve(stream) {
                        eprintln!("{error}");
                    }
                });
                if let Err(error) = spawned {
                    eprintln!("{error}");
                }
            }
        });
        Ok(())
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let IpAddr::V4(called) = stream.local_addr()?.ip() else { return Ok(()) };
        let peer = u32::from(called).wrapping_sub(SOURCES);
        if peer >= self.peers {
            return Ok(());
        }
        handshake(&mut stream, (self.asns)(peer), called)?;
        self.sessions.lock().unwrap().insert(peer, Arc::new(Mutex::new(stream.try_clone()?)));
        self.tally.changed.notify_all();
        let mut stream = std::io::BufReader::with_capacity(16 * 1024, stream);
        loop {
            match read(&mut stream)? {
                (2, body) => self.tally.update(&body),
                (3, body) => eprintln!("peer {peer}: NOTIFICATION {body:02x?}"),
                _ => {}
            }
        }
    }

    /// Whether all sessions are up in time.
    fn up(&self, limit: Duration) -> bool {
        let held = self.sessions.lock().unwrap();
        let all = self.tally.changed.wait_timeout_while(held, limit, |sessions| sessions.len() < self.peers as usize);
        all.unwrap().0.len() == self.peers as usize
    }

    fn attributes(&self, peer: u32, group: u32) -> Vec<u8> {
        let mut out = vec![0x40, 1, 1, 0];
        let asn = (self.asns)(peer);
        let own: Vec<u32> = if asn == self.local { vec![] } else { vec![asn, 100_000 + group % 50_000, 200_000 + group / 50_000] };
        out.extend([0x40, 2, if own.is_empty() { 0 } else { 2 + 4 * own.len() as u8 }]);
        if !own.is_empty() {
            out.extend([2, own.len() as u8]);
            out.extend(own.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        out.extend([0x40, 3, 4]);
        out.extend(Self::source(peer).octets());
        if asn == self.local {
            out.extend([0x40, 5, 4]);
            out.extend(2_147_482_623u32.to_be_bytes());
        }
        out
    }

    /// The messages that announce (or withdraw) a series of prefixes.
    fn messages(&self, peer: u32, first: u32, length: u8, number: u32, per: u32, announce: bool) -> Vec<u8> {
        let octets = usize::from(length.div_ceil(8));
        let nlri = |n: u32| {
            let mut one = vec![length];
            one.extend(&(first + (n << (32 - u32::from(length)))).to_be_bytes()[..octets]);
            one
        };
        let room = 4000 / (1 + octets) as u32;
        let mut out = Vec::new();
        let mut at = 0;
        while at < number {
            let end = number.min(at + per.min(room));
            let list: Vec<u8> = (at..end).flat_map(nlri).collect();
            let mut body = Vec::new();
            if announce {
                let attributes = self.attributes(peer, at / per);
                body.extend([0, 0]);
                body.extend((attributes.len() as u16).to_be_bytes());
                body.extend(attributes);
                body.extend(list);
            } else {
                body.extend((list.len() as u16).to_be_bytes());
                body.extend(list);
                body.extend([0, 0]);
            }
            out.extend(message(2, &body));
            at = end;
        }
        out
    }

    /// Sends to the daemon; seconds until all has arrived, or none.
    fn run(&self, who: &str, first: u32, length: u8, number: u32, per: u32, announce: bool, expect: u64, limit: u64) -> (Option<f64>, u64) {
        let peers = if who == "all" { 0..self.peers } else { who.parse().map_or(0..0, |n: u32| n..n + 1) };
        let step = number << (32 - u32::from(length));
        let several = peers.len() > 1;
        let all: Vec<_> = peers.map(|p| (p, self.messages(p, first + if several { p * step } else { 0 }, length, number, per, announce))).collect();
        let sessions = self.sessions.lock().unwrap().clone();
        self.tally.expect(expect);
        let began = Instant::now();
        for (peer, octets) in all {
            let Some(session) = sessions.get(&peer) else { continue };
            if let Err(error) = session.lock().unwrap().write_all(&octets) {
                eprintln!("peer {peer}: {error}");
            }
        }
        let done = if expect == 0 { Some(Instant::now()) } else { self.tally.wait(Duration::from_secs(limit)) };
        let sum = if announce { &self.tally.came } else { &self.tally.gone };
        (done.map(|at| at.saturating_duration_since(began).as_secs_f64()), sum.load(Ordering::Relaxed))
    }

    fn command(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok());
        let first = || words.get(2).and_then(|w| w.parse::<Ipv4Addr>().ok()).map(u32::from);
        match *words.first()? {
            "up" => {
                let began = Instant::now();
                Some(if self.up(Duration::from_secs(number(1)?)) {
                    format!("{{\"seconds\": {}}}", began.elapsed().as_secs_f64())
                } else {
                    format!("{{\"error\": \"only {} sessions are up\"}}", self.sessions.lock().unwrap().len())
                })
            }
            "announce" => {
                let (took, arrived) =
                    self.run(words[1], first()?, number(3)? as u8, number(4)? as u32, number(5)? as u32, true, number(6)?, number(7)?);
                Some(outcome(took, arrived))
            }
            "withdraw" => {
                let (took, arrived) = self.run(words[1], first()?, number(3)? as u8, number(4)? as u32, u32::MAX, false, number(5)?, number(6)?);
                Some(outcome(took, arrived))
            }
            "churn" => {
                let mut times = Vec::new();
                for n in 0..number(4)? {
                    let (took, arrived) = self.run(words[1], first()?, number(3)? as u8, 1, 1, n % 2 == 0, number(5)?, 30);
                    let Some(took) = took else { return Some(outcome(None, arrived)) };
                    times.push(took);
                }
                times.sort_by(f64::total_cmp);
                let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
                Some(format!("{{\"seconds\": {}, \"p50\": {}, \"p99\": {}, \"max\": {}}}", times.iter().sum::<f64>(), at(0.5), at(0.99), at(1.0)))
            }
            _ => None,
        }
    }
}

fn outcome(took: Option<f64>, arrived: u64) -> String {
    match took {
        Some(seconds) => format!("{{\"seconds\": {seconds}, \"arrived\": {arrived}}}"),
        None => format!("{{\"error\": \"only {arrived} have arrived\"}}"),
    }
}

/// Dials every speaker and passes on what each says to all others.
fn relay(asn: u32, peers: u32) -> std::io::Result<()> {
    let sessions = Sessions::default();
    for peer in 0..peers {
        let mut stream = loop {
            match TcpStream::connect(SocketAddrV4::new(Crowd::source(peer), 179)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        handshake(&mut stream, asn, Ipv4Addr::new(198, 51, 100, 1))?;
        sessions.lock().unwrap().insert(peer, Arc::new(Mutex::new(stream.try_clone()?)));
        let others = sessions.clone();
        std::thread::Builder::new().stack_size(STACK).spawn(move || {
            let mut stream = std::io::BufReader::with_capacity(16 * 1024, stream);
            // who is there does not change any more when the first UPDATE comes
            let mut to: Vec<Arc<Mutex<TcpStream>>> = Vec::new();
            while let Ok((kind, body)) = read(&mut stream) {
                if kind != 2 {
                    continue;
                }
                if to.is_empty() {
                    to = others.lock().unwrap().iter().filter(|(other, _)| **other != peer).map(|(_, s)| s.clone()).collect();
                }
                let octets = message(2, &body);
                for other in &to {
                    let _ = other.lock().unwrap().write_all(&octets);
                }
            }
        })?;
    }
    keepalives(&sessions);
    loop {
        std::thread::park();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u32>().ok());
    let (Some(local), Some(peers)) = (number(2), number(3)) else {
        eprintln!("usage: speakers gen AS PEERS PEER-AS|each\n       speakers relay AS PEERS");
        std::process::exit(2);
    };
    if args[1] == "relay" {
        if let Err(error) = relay(local, peers) {
            eprintln!("{error}");
        }
        return;
    }
    let every = number(4);
    let asns = Box::new(move |peer| every.unwrap_or(65001 + peer));
    let crowd = Arc::new(Crowd { asns, local, peers, sessions: Sessions::default(), tally: Arc::default() });
    if let Err(error) = crowd.listen() {
        eprintln!("cannot listen: {error}");
        std::process::exit(1);
    }
    keepalives(&crowd.sessions);
    println!("{{\"listens\": true}}");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        println!("{}", crowd.command(&line).unwrap_or_else(|| "{\"error\": \"no such command\"}".into()));
    }
}
