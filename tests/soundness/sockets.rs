//! Sockets, used and dropped on another thread while the tasklet that waits on them is killed.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::fd::AsRawFd,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use pila::{
    JoinError,
    net::{TcpListener, TcpStream},
    run, schedule, sleep, spawn_thread, tasklet, timeout,
};

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn a_kill_on_one_thread_leaves_the_wait_on_another_as_it_is() {
    let (mine, mut peer) = pair();
    let shared = Arc::new(mine);
    let theirs = shared.clone();
    let (waits, waiting) = mpsc::channel();
    let thread = spawn_thread(move || {
        let reader = tasklet(move || {
            let mut buffer = [0; 4];
            (&*theirs).read_exact(&mut buffer).unwrap();
            buffer
        });
        schedule();
        waits.send(reader.is_blocked()).unwrap();
        reader.join().unwrap()
    });
    assert!(waiting.recv().unwrap());
    for _ in 0..50 {
        let ours = shared.clone();
        let victim = tasklet(move || (&*ours).read(&mut [0; 4]));
        sleep(Duration::from_micros(200));
        assert!(victim.is_blocked());
        victim.kill().unwrap();
        let ended = timeout(Duration::from_micros(200), || (&*shared).read(&mut [0; 4]));
        assert!(ended.is_err());
    }
    peer.write_all(b"late").unwrap();
    assert_eq!(&thread.unwrap().join().unwrap(), b"late");
}

#[test]
fn the_last_owner_may_be_another_thread_while_the_one_that_waits_is_killed() {
    let (stream, hear) = mpsc::channel::<Arc<TcpStream>>();
    // Drops each as it comes, at any moment of the kill.
    let dropper = thread::spawn(move || hear.iter().for_each(drop));
    let mut numbers = Vec::new();
    for round in 0..200 {
        let (mine, mut peer) = pair();
        numbers.push(mine.as_raw_fd());
        let mine = Arc::new(mine);
        let theirs = mine.clone();
        let victim = tasklet(move || (&*theirs).read(&mut [0; 4]));
        sleep(Duration::from_micros(50));
        if round % 2 == 0 {
            stream.send(mine).unwrap();
            victim.kill().unwrap();
        } else {
            victim.kill().unwrap();
            stream.send(mine).unwrap();
        }
        assert!(matches!(victim.join(), Err(JoinError::Killed)));
        // Closed, whoever did it: by number it may be another's by now.
        let ended = timeout(Duration::from_secs(10), || peer.read(&mut [0; 4]));
        assert_eq!(ended.unwrap().unwrap(), 0);
        // One that gets the same number is not mistaken for it.
        let (mut next, mut its_peer) = pair();
        its_peer.write_all(b"mine").unwrap();
        let mut buffer = [0; 4];
        timeout(Duration::from_secs(10), || next.read_exact(&mut buffer)).unwrap().unwrap();
        assert_eq!(&buffer, b"mine");
    }
    drop(stream);
    dropper.join().unwrap();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.len() < 100, "no number was used again, so nothing was shown");
}

#[test]
fn one_that_is_registered_here_may_be_read_and_closed_elsewhere() {
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (mut warm, _peer) = pair();
    assert!(timeout(Duration::ZERO, || warm.read(&mut [0; 1])).is_err());
    let mut last = open();
    for _ in 0..20 {
        let (mut mine, mut peer) = pair();
        // Registered with this thread's poller.
        assert!(timeout(Duration::ZERO, || mine.read(&mut [0; 1])).is_err());
        let elsewhere = spawn_thread(move || {
            let killed = tasklet(move || {
                let _ = mine.read_exact(&mut [0; 8]);
                mine
            });
            schedule();
            killed.kill().unwrap();
            run().blocked
        });
        peer.write_all(b"half").unwrap();
        assert_eq!(elsewhere.unwrap().join().unwrap(), 0);
        // Bytes that nobody read: the peer is told by a reset.
        let ended = timeout(Duration::from_secs(10), || peer.read(&mut [0; 4])).unwrap();
        assert!(ended.is_err() || ended.is_ok_and(|length| length == 0));
    }
    // Other tests open and close some of theirs meanwhile.
    for _ in 0..1000 {
        if open() <= last {
            last = 0;
            break;
        }
        sleep(Duration::from_millis(10));
    }
    assert_eq!(last, 0, "descriptors were leaked");
}

#[test]
fn a_listener_is_shared_by_threads_of_which_one_is_killed() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let address: SocketAddr = listener.local_addr().unwrap();
    let theirs = listener.clone();
    let acceptor = spawn_thread(move || {
        let accepted = tasklet(move || theirs.accept().unwrap().1);
        accepted.join().unwrap()
    });
    for _ in 0..20 {
        let ours = listener.clone();
        let victim = tasklet(move || drop(ours.accept()));
        schedule();
        victim.kill().unwrap();
    }
    drop(listener);
    let client = TcpStream::connect(address).unwrap();
    assert_eq!(acceptor.unwrap().join().unwrap(), client.local_addr().unwrap());
}
