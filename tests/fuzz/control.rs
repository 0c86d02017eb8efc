//! The control socket: bytes that are no request, requests that are cut off, and clients that say nothing.

use super::watch::{Target, watched};
use bolero::TypeGenerator;
use pitfs::control::{
    Answer, Base, CloneRequest, Listening, Mirror, PROTOCOL, Request, Server, Session, Snap, Verb, ask,
};
use pitfs::daemon::Daemon;
use pitfs::logstore::Codec;
use pitfs::media::Directory;
use pitfs::tree::CreateOptions;
use serde_bytes::ByteBuf;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a client may wait for an answer to a request that makes sense.
const SOON: Duration = Duration::from_secs(5);

struct Served {
    daemon: Arc<Daemon>,
    server: Server,
    store: PathBuf,
    _place: tempfile::TempDir,
}

fn serve() -> Served {
    let place = tempfile::tempdir().unwrap();
    let store = place.path().join("store");
    let codec = Codec::Lz4;
    let options = CreateOptions { track_bytes: 16 << 10, codec, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
    Daemon::create(&store, &options).unwrap();
    let daemon = Arc::new(Daemon::open(&store).unwrap());
    let server = Listening::begin(&Arc::new(Directory::open(&store).unwrap())).unwrap().serve(&daemon).unwrap();
    Served { daemon, server, store, _place: place }
}

impl Served {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.store.join("control")).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A command still gets its answer, and soon.
    fn answers(&self) {
        let start = Instant::now();
        let target = pitfs::control::Target { store: self.store.clone(), base: None };
        let answer = ask(&target, Verb::List { all: false }, &mut |_| Ok(())).unwrap();
        assert!(matches!(answer, Answer::List(_)), "{answer:?}");
        assert!(start.elapsed() < SOON, "the answer took {:?}", start.elapsed());
    }
}

#[derive(Clone, Debug, TypeGenerator)]
enum Message {
    Bytes(Vec<u8>),
    /// With a length of its own in front.
    Framed {
        len: Option<u32>,
        bytes: Vec<u8>,
    },
    Nested {
        marks: u16,
        mark: u8,
    },
    Snap(Vec<u8>),
    Delete(Vec<Vec<u8>>),
    Rename(Vec<u8>, Vec<u8>),
    Diff(Vec<u8>, Vec<u8>),
    Clone(Vec<u8>, Vec<u8>),
    Base(Vec<u8>, Option<Vec<u8>>),
    Restore(Option<Vec<u8>>, Vec<Vec<u8>>),
    Versions(Vec<u8>),
    Register(Vec<u8>, Vec<Vec<u8>>),
    Mirror(Vec<u8>, Vec<u8>),
    /// A request that makes sense, changed in one place or cut off.
    Changed {
        at: u8,
        to: u8,
        len: Option<u8>,
    },
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn request(verb: Verb) -> Vec<u8> {
    pitfs::control::encode(&Request { protocol: PROTOCOL, base: None, verb, stream: None }).unwrap()
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let name = |bytes: &Vec<u8>| ByteBuf::from(bytes.clone());
        match self {
            Message::Bytes(bytes) => bytes.clone(),
            Message::Framed { len, bytes } => [&len.unwrap_or(bytes.len() as u32).to_le_bytes(), &bytes[..]].concat(),
            Message::Nested { marks, mark } => framed(
                &[&b"["[..], b"{", b"{\"\":", b"{\"rehearse\":", b"\xff"][usize::from(*mark) % 5]
                    .repeat((*marks).into()),
            ),
            Message::Snap(bytes) => framed(&request(Verb::Snap(Snap { name: Some(name(bytes)), ..Snap::default() }))),
            Message::Delete(names) => {
                let names = names.iter().map(name).collect();
                framed(&request(Verb::Delete { names, group: None, recursive: true }))
            }
            Message::Rename(old, new) => framed(&request(Verb::Rename { old: name(old), new: name(new) })),
            Message::Diff(before, after) => framed(&request(Verb::Diff { before: name(before), after: name(after) })),
            Message::Clone(snapshot, new) => {
                let (snapshot, name) = (name(snapshot), name(new));
                let wanted = CloneRequest { snapshot, name, full: true, ..CloneRequest::default() };
                framed(&request(Verb::Clone(wanted)))
            }
            Message::Base(new, snapshot) => {
                let (name, snapshot) = (name(new), snapshot.as_ref().map(name));
                let (uid, gid, copy, offline, reserve) = (0, 0, false, false, false);
                let base = Base::Create { name, snapshot, uid, gid, copy, offline, reserve };
                framed(&request(Verb::Base(base)))
            }
            Message::Restore(snapshot, paths) => {
                let paths = paths.iter().map(name).collect();
                framed(&request(Verb::Restore { snapshot: snapshot.as_ref().map(name), paths, group: None }))
            }
            Message::Versions(path) => framed(&request(Verb::Versions { path: name(path) })),
            Message::Register(new, bases) => {
                let bases = bases.iter().map(name).collect();
                let (name, group, offline, reserve) = (name(new), None, false, false);
                let session = Session::Register { name, bases, group, offline, reserve };
                framed(&request(Verb::Session(session)))
            }
            Message::Mirror(base, new) => {
                let (base, name, offline) = (name(base), name(new), false);
                framed(&request(Verb::Mirror(Mirror::Establish { base, name, offline })))
            }
            Message::Changed { at, to, len } => {
                let mut bytes = request(Verb::Rename { old: name(&b"old".into()), new: name(&b"new".into()) });
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *to;
                bytes.truncate(len.map_or(usize::MAX, usize::from));
                framed(&bytes)
            }
        }
    }
}

#[test]
fn hostile_requests_get_an_error_and_harm_nobody() {
    let served = Target::new(serve());
    bolero::check!().with_type::<Message>().with_test_time(Duration::from_secs(3)).for_each(|message| {
        let send = || {
            let mut stream = served.connect();
            // The daemon may have had enough before all is sent.
            let _gone_already = stream.write_all(&message.bytes());
            let _gone_already = stream.shutdown(Shutdown::Write);
            let mut reply = Vec::new();
            match stream.read_to_end(&mut reply) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
            }
        };
        watched(|| format!("{message:?}"), send);
    });
    served.answers();
    let served = served.into_inner();
    served.server.stop();
    served.daemon.close().unwrap();
}

#[test]
fn messages_that_announce_too_much_or_nest_too_deep_are_refused() {
    let served = serve();
    let deep = vec![b'['; 1 << 20];
    let begun = format!("{{\"protocol\":{PROTOCOL},\"base\":null,\"verb\":");
    let rehearsing = [begun.as_bytes(), &b"{\"rehearse\":".repeat(80_000)].concat();
    let cut = [&deep.len().to_le_bytes()[..4], &deep[..9]].concat();
    for bytes in [vec![0xff; 4], vec![0xff; 100_000], framed(&deep), framed(&rehearsing), cut] {
        let send = || {
            let mut stream = served.connect();
            let _gone_already = stream.write_all(&bytes);
            let _gone_already = stream.shutdown(Shutdown::Write);
            let mut reply = Vec::new();
            let _gone_already = stream.read_to_end(&mut reply);
        };
        watched(|| format!("{} bytes", bytes.len()), send);
    }
    served.answers();
    served.server.stop();
    served.daemon.close().unwrap();
}

/// Clients that connect and say nothing, or half of something, hold up neither others nor the daemon's end.
#[test]
fn silent_clients_hold_up_nobody() {
    let served = serve();
    let mut silent: Vec<UnixStream> = Vec::new();
    for i in 0..300 {
        let mut stream = served.connect();
        if i % 2 == 0 {
            let half = framed(&request(Verb::Status));
            stream.write_all(&half[..1 + i % (half.len() - 1)]).unwrap();
        }
        silent.push(stream);
    }
    served.answers();
    // One that does not read its answers.
    let mut deaf = served.connect();
    deaf.write_all(&framed(&request(Verb::Check))).unwrap();
    served.answers();
    let start = Instant::now();
    served.server.stop();
    served.daemon.close().unwrap();
    assert!(start.elapsed() < SOON, "closing took {:?}", start.elapsed());
    drop(silent);
}
