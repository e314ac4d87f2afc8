//! A process full of sockets: the test binary runs itself again for it, so that
//! the clients' descriptors and their work are another process's.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use protocol::handshake::{Initiator, StaticKey};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cluster::{Cluster, random32};

/// Tells the child what to do: `SECONDS_BETWEEN_BYTES COUNT ADDRESS`, 0 for
/// clients that say nothing.
const TASK: &str = "SALLYPORT_TEST_CROWD";

/// A child gives up after this time.
const LIFE: Duration = Duration::from_secs(40);

/// Connects a second: what the backlog cannot hold waits for a second each.
const CONNECTS_PER_SECOND: u32 = 10_000;

/// How often the child looks at its clocks.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// A crowd in a process of its own.
pub struct Crowd {
    child: Child,
    lines: Receiver<String>,
}

/// How all of a crowd were gone.
pub struct Gone {
    /// How many were closed by the gateway.
    pub count: usize,
    /// From connect to the end: the first …
    pub first: Duration,
    /// … and the last.
    pub last: Duration,
}

impl Crowd {
    /// Connects so many clients that send a byte of a HELLO in each `period`, or
    /// nothing where that is 0; returns when all stand.
    pub fn connect(cluster: &Cluster, count: usize, period: Duration) -> Self {
        let task = format!("{} {count} {}", period.as_secs(), cluster.address());
        let mut child = Command::new(std::env::current_exe().expect("our own path"))
            .args([
                "crowds::child::is_not_a_test_but_a_crowd",
                "--exact",
                "--nocapture",
            ])
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("our own binary starts");
        let stderr = child.stderr.take().expect("piped");
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let crowd = Self { child, lines };
        let line = crowd.lines.recv_timeout(LIFE).expect("a line");
        assert!(line.starts_with("connected "), "{line}");
        println!("{line} ms");
        crowd
    }

    /// How they ended, once all have.
    pub fn poll_gone(&self, patience: Duration) -> Option<Gone> {
        let line = self.lines.recv_timeout(patience).ok()?;
        let numbers: Vec<u64> = line
            .split(' ')
            .map(|number| {
                number
                    .parse()
                    .unwrap_or_else(|_| panic!("a crowd says: {line}"))
            })
            .collect();
        let [count, first, last] = numbers[..] else {
            panic!("a crowd says: {line}");
        };
        Some(Gone {
            count: count as usize,
            first: Duration::from_millis(first),
            last: Duration::from_millis(last),
        })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of a crowd.
struct Member {
    stream: TcpStream,
    connected_at: Instant,
    sent: usize,
}

/// Where the child begins. As a test it does nothing.
#[test]
fn is_not_a_test_but_a_crowd() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    // Ends with whoever wanted it: their end closes the pipe.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let mut words = task.split(' ');
    let mut word = || words.next().expect("a task of three words");
    let period = Duration::from_secs(word().parse().expect("seconds"));
    let count: usize = word().parse().expect("a count");
    let address: SocketAddr = word().parse().expect("an address");
    crowd(period, count, address);
}

fn crowd(period: Duration, count: usize, address: SocketAddr) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
    // A HELLO that would be good, had it ever an end.
    let mut hello = Vec::new();
    let key = StaticKey::from_secret(random32());
    Initiator::hello(key.public(), random32(), 1, &mut hello).expect("a usable key");

    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
    let mut members: Vec<Option<Member>> = Vec::with_capacity(count);
    let mut drips = VecDeque::with_capacity(count);
    let began = Instant::now();
    for index in 0..count {
        let due = began + Duration::from_secs(1) * index as u32 / CONNECTS_PER_SECOND;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let stream = TcpStream::connect(address).expect("the gateway accepts");
        stream.set_nonblocking(true).expect("a socket");
        let data = EventData::new_u64(index as u64);
        epoll::add(&poller, &stream, data, EventFlags::IN).expect("a socket");
        let connected_at = Instant::now();
        members.push(Some(Member {
            stream,
            connected_at,
            sent: 0,
        }));
        if !period.is_zero() {
            drips.push_back((connected_at, index));
        }
        // Those that came first do not wait for the last ones.
        drip(&mut members, &mut drips, period, &hello);
    }
    eprintln!("connected {}", began.elapsed().as_millis());

    let end = Instant::now() + LIFE;
    let mut lives: Vec<Duration> = Vec::with_capacity(count);
    let mut events = Vec::with_capacity(1_024);
    while lives.len() < count && Instant::now() < end {
        events.clear();
        epoll::wait(
            &poller,
            rustix::buffer::spare_capacity(&mut events),
            Some(&TICK),
        )
        .expect("an epoll");
        for event in &events {
            let slot = &mut members[event.data.u64() as usize];
            let ended =
                slot.as_mut()
                    .is_some_and(|member| match member.stream.read(&mut [0; 64]) {
                        Ok(bytes) => bytes == 0,
                        Err(error) => error.kind() != ErrorKind::WouldBlock,
                    });
            if ended && let Some(member) = slot.take() {
                lives.push(member.connected_at.elapsed());
            }
        }
        drip(&mut members, &mut drips, period, &hello);
    }
    let ms = |life: Option<&Duration>| life.map_or(0, Duration::as_millis);
    let (first, last) = (ms(lives.iter().min()), ms(lives.iter().max()));
    eprintln!("{} {first} {last}", lives.len());
}

/// Sends a byte for each member whose time has come.
fn drip(
    members: &mut [Option<Member>],
    drips: &mut VecDeque<(Instant, usize)>,
    period: Duration,
    hello: &[u8],
) {
    while let Some(&(due, index)) = drips.front()
        && due <= Instant::now()
    {
        drips.pop_front();
        // The last byte is never sent.
        if let Some(member) = &mut members[index]
            && let Some(byte) = hello[..hello.len() - 1].get(member.sent..=member.sent)
        {
            member.sent += 1;
            // One that fails has been closed; its event says so.
            let _ = member.stream.write(byte);
            drips.push_back((due + period, index));
        }
    }
}
