//! Looking up hosts: the system's resolver blocks, so it is asked on threads of its own while the tasklets wait.
//!
//! - Who asks for a host that is being looked up waits for the same answer: many askers, one query.
//! - Queries are begun first come first served, on as many threads as [`threads`] says. One that nobody waits for any more
//!   is not begun; one that has begun is left to itself, and its answer is kept like any other.
//! - Answers are kept for [`KEPT_FOR`], [`KEPT_AT_MOST`] of them. Failures are not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{env, error, thread};

use pila_runtime::park::{self, Waiting, Waker};

/// How long an answer is good for. The system does not say how long it would be.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// How many answers are kept.
const KEPT_AT_MOST: usize = 1024;

/// How long a thread waits for a query before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How many threads there may be, unless the environment says otherwise. A server that does not answer holds one for 10
/// seconds and more.
const THREADS: usize = 16;

/// The addresses of a host, without ports, in the order in which they should be tried.
type Addresses = Arc<[SocketAddr]>;

/// What came of a query, for all who asked.
type Answer = Result<Addresses, Arc<io::Error>>;

/// Asks the system, as std does.
pub(crate) static SYSTEM: Resolver =
    Resolver::new(|host| (host, 0).to_socket_addrs().map(Iterator::collect));

/// Who looks up hosts.
#[derive(Debug)]
pub(crate) struct Resolver {
    /// Blocks until there is an answer.
    look_up: fn(&str) -> io::Result<Vec<SocketAddr>>,
    state: Mutex<State>,
    /// Told to an idle thread when there is a query.
    more: Condvar,
}

#[derive(Debug)]
struct State {
    /// The queries under way, by arrival.
    queries: BTreeMap<u64, Query>,
    /// Those of them that no thread has begun.
    line: BTreeSet<u64>,
    next_number: u64,
    /// The numbers of the queries by the host they ask for, and the answers; made with the first of either.
    hosts: Option<Hosts>,
    threads: usize,
    /// Those of them that have nothing to do.
    idle: usize,
}

#[derive(Default, Debug)]
struct Hosts {
    /// Which query looks a host up.
    asked: HashMap<Arc<str>, u64>,
    known: HashMap<Arc<str>, Known>,
}

#[derive(Debug)]
struct Known {
    addresses: Addresses,
    /// When it is known no longer.
    until: Instant,
}

/// A host that is looked up, or will be.
#[derive(Debug)]
struct Query {
    host: Arc<str>,
    /// Who waits for it, by arrival.
    askers: BTreeMap<u64, Option<Waker>>,
    next_asker: u64,
    /// Where they find the answer.
    answer: Arc<OnceLock<Answer>>,
}

impl Resolver {
    pub(crate) const fn new(look_up: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self { look_up, state: Mutex::new(State::new()), more: Condvar::new() }
    }

    /// The addresses of `host`, waiting for them if they are not known.
    pub(crate) fn resolve(&'static self, host: &str) -> io::Result<Addresses> {
        // Names are alike whatever their case. Behind a `%` stands that of an interface, which is not.
        let (name, zone) = host.split_at(host.find('%').unwrap_or(host.len()));
        let host = name.to_ascii_lowercase() + zone;
        if let Some(addresses) = self.state().known(&host) {
            return Ok(addresses);
        }
        self.ask(&host)?.wait()
    }

    /// Joins the query for `host`, or makes one.
    fn ask(&'static self, host: &str) -> io::Result<Asker> {
        let mut state = self.state();
        let number = match state.hosts().asked.get(host) {
            Some(&number) => number,
            None => self.begin(&mut state, host.into())?,
        };
        let query = state.queries.get_mut(&number).expect("it is listed while it is under way");
        let asker = query.next_asker;
        query.next_asker += 1;
        query.askers.insert(asker, None);
        Ok(Asker { resolver: self, query: number, number: asker, answer: query.answer.clone() })
    }

    fn begin(&'static self, state: &mut State, host: Arc<str>) -> io::Result<u64> {
        if state.line.len() < state.idle {
            self.more.notify_one();
        } else if state.threads < threads()
            && let Err(error) = self.add_thread(state)
            && state.threads == 0
        {
            return Err(error);
        }
        let number = state.next_number;
        state.next_number += 1;
        state.hosts().asked.insert(host.clone(), number);
        let (askers, answer) = (BTreeMap::new(), Arc::default());
        state.queries.insert(number, Query { host, askers, next_asker: 0, answer });
        state.line.insert(number);
        Ok(number)
    }

    /// Makes a thread. Under the lock, so that nobody counts on one that fails to begin.
    fn add_thread(&'static self, state: &mut State) -> io::Result<()> {
        thread::Builder::new().name("pila-resolver".into()).spawn(|| self.work())?;
        state.threads += 1;
        Ok(())
    }

    /// What a thread does.
    fn work(&self) {
        while let Some((number, host)) = self.next() {
            let answer = (self.look_up)(&host);
            self.answered(number, answer.map(Into::into).map_err(Arc::new));
        }
    }

    /// Waits for a query to begin. None when there has been none for long, and the thread is to end.
    fn next(&self) -> Option<(u64, Arc<str>)> {
        let mut state = self.state();
        state.idle += 1;
        let nothing = |state: &mut State| state.line.is_empty();
        let waited = self.more.wait_timeout_while(state, KEEP_ALIVE, nothing);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.idle -= 1;
        let Some(number) = state.line.pop_first() else {
            state.threads -= 1;
            return None;
        };
        Some((number, state.queries[&number].host.clone()))
    }

    fn answered(&self, number: u64, answer: Answer) {
        let mut state = self.state();
        let query = state.queries.remove(&number).expect("only an answer ends one that has begun");
        state.hosts().asked.remove(&query.host);
        if let Ok(addresses) = &answer {
            state.hosts().keep(query.host, addresses.clone(), Instant::now());
        }
        query.answer.set(answer).expect("there is one answer");
        drop(state);
        for waker in query.askers.into_values().flatten() {
            waker.wake();
        }
    }

    /// No code that can panic runs under this lock, so a poisoned one is still sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn new() -> Self {
        Self {
            queries: BTreeMap::new(),
            line: BTreeSet::new(),
            next_number: 0,
            hosts: None,
            threads: 0,
            idle: 0,
        }
    }

    fn hosts(&mut self) -> &mut Hosts {
        self.hosts.get_or_insert_default()
    }

    fn known(&mut self, host: &str) -> Option<Addresses> {
        let known = self.hosts.as_ref()?.known.get(host)?;
        (Instant::now() < known.until).then(|| known.addresses.clone())
    }
}

impl Hosts {
    fn keep(&mut self, host: Arc<str>, addresses: Addresses, now: Instant) {
        if self.known.len() >= KEPT_AT_MOST {
            self.known.retain(|_, known| now < known.until);
        }
        if self.known.len() >= KEPT_AT_MOST {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.until);
            let oldest = oldest.map(|(host, _)| host.clone()).expect("there are many");
            self.known.remove(&oldest);
        }
        self.known.insert(host, Known { addresses, until: now + KEPT_FOR });
    }
}

/// One who asks. Dropped before there is an answer, it asks no longer.
#[derive(Debug)]
struct Asker {
    resolver: &'static Resolver,
    query: u64,
    number: u64,
    answer: Arc<OnceLock<Answer>>,
}

impl Asker {
    fn wait(self) -> io::Result<Addresses> {
        loop {
            let ticket = park::begin()?;
            // Made before the lock is taken, for the thread may have to make its mailbox.
            let waker = park::waker(ticket);
            if self.is_answered(waker) {
                break;
            }
            park::wait(ticket, Waiting::Lookup, None)?;
        }
        match self.answer.get().expect("it is there") {
            Ok(addresses) => Ok(addresses.clone()),
            Err(error) => Err(Shared::error(error)),
        }
    }

    /// Whether there is an answer; if not, `waker` is woken for it.
    fn is_answered(&self, waker: Waker) -> bool {
        let mut state = self.resolver.state();
        if let Some(query) = state.queries.get_mut(&self.query) {
            query.askers.insert(self.number, Some(waker));
        }
        self.answer.get().is_some()
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let mut state = self.resolver.state();
        let Some(query) = state.queries.get_mut(&self.query) else { return };
        query.askers.remove(&self.number);
        if query.askers.is_empty() && state.line.remove(&self.query) {
            let query = state.queries.remove(&self.query).expect("it was there");
            state.hosts().asked.remove(&query.host);
        }
    }
}

/// One failure, for all who asked.
#[derive(Debug)]
struct Shared(Arc<io::Error>);

impl Shared {
    /// As the resolver said it: the same kind, text and number of the system.
    fn error(error: &Arc<io::Error>) -> io::Error {
        match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), Self(error.clone())),
        }
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for Shared {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}

/// How many threads there may be.
fn threads() -> usize {
    static WANTED: OnceLock<usize> = OnceLock::new();
    *WANTED.get_or_init(|| {
        let wanted = env::var("PILA_RESOLVER_THREADS").ok().and_then(|text| text.parse().ok());
        wanted.filter(|&threads| threads > 0).unwrap_or(THREADS)
    })
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the resolver's threads have no tasklets")]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use pila_runtime::{Tasklet, tasklet};

    use super::*;

    /// A resolver that answers when it is told to.
    macro_rules! patient {
        () => {{
            static GATE: AtomicBool = AtomicBool::new(false);
            static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());
            static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
            static PEAK: AtomicUsize = AtomicUsize::new(0);
            static RESOLVER: Resolver = Resolver::new(|host| {
                PEAK.fetch_max(AT_ONCE.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                ASKED.lock().unwrap().push(host.to_owned());
                while !GATE.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
                AT_ONCE.fetch_sub(1, Ordering::SeqCst);
                answer(host)
            });
            (&RESOLVER, &GATE, &ASKED, &PEAK)
        }};
    }

    fn answer(host: &str) -> io::Result<Vec<SocketAddr>> {
        match host {
            "nowhere" => Err(io::Error::new(io::ErrorKind::NotFound, "nobody knows it")),
            "broken" => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(vec![([127, 0, 0, 1], 0).into()]),
        }
    }

    fn ask(resolver: &'static Resolver, host: &str) -> Tasklet<io::Result<Addresses>> {
        let host = host.to_owned();
        tasklet(move || resolver.resolve(&host))
    }

    fn asked(log: &Mutex<Vec<String>>) -> Vec<String> {
        log.lock().unwrap().clone()
    }

    #[test]
    fn many_askers_make_one_query() {
        let (resolver, gate, log, _) = patient!();
        let mut askers: Vec<_> = (0..10_000).map(|_| ask(resolver, "example.org")).collect();
        let others = [(); 2].map(|()| thread::spawn(|| resolver.resolve("Example.ORG").unwrap()));
        pila_runtime::schedule();
        assert!(askers.iter().all(|asker| asker.is_blocked()));
        // The head of those who ask is not what they depend on.
        askers.remove(0).kill().unwrap();
        gate.store(true, Ordering::SeqCst);
        for asker in askers {
            assert_eq!(asker.join().unwrap().unwrap()[..], answer("").unwrap());
        }
        for other in others {
            other.join().unwrap();
        }
        // It is known now, whoever asks.
        assert_eq!(resolver.resolve("example.org").unwrap().len(), 1);
        assert_eq!(asked(log), ["example.org"]);
        let state = resolver.state();
        assert!(state.queries.is_empty() && state.line.is_empty());
        assert!(state.hosts.as_ref().unwrap().asked.is_empty());
    }

    #[test]
    fn a_failure_is_for_all_who_asked_and_nobody_else() {
        let (resolver, gate, log, _) = patient!();
        let askers = [ask(resolver, "nowhere"), ask(resolver, "nowhere")];
        let broken = ask(resolver, "broken");
        pila_runtime::schedule();
        gate.store(true, Ordering::SeqCst);
        for asker in askers {
            let error = asker.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert_eq!(error.to_string(), "nobody knows it");
        }
        assert_eq!(broken.join().unwrap().unwrap_err().raw_os_error(), Some(5));
        assert!(resolver.resolve("nowhere").is_err());
        assert_eq!(asked(log).iter().filter(|&host| host == "nowhere").count(), 2);
    }

    #[test]
    fn queries_are_begun_in_order_on_a_few_threads() {
        let (resolver, gate, log, peak) = patient!();
        let hosts: Vec<_> = (0..100).map(|number| format!("host{number:02}")).collect();
        let askers: Vec<_> = hosts.iter().map(|host| ask(resolver, host)).collect();
        pila_runtime::schedule();
        while asked(log).len() < threads() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut first = asked(log);
        first.sort();
        assert_eq!(first, hosts[..threads()]);
        gate.store(true, Ordering::SeqCst);
        for asker in askers {
            asker.join().unwrap().unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), threads());
        let mut asked = asked(log);
        asked.sort();
        assert_eq!(asked, hosts);
    }

    #[test]
    fn what_nobody_waits_for_is_not_asked() {
        let (resolver, gate, log, _) = patient!();
        let busy: Vec<_> =
            (0..threads()).map(|number| ask(resolver, &format!("busy{number}"))).collect();
        let (killed, also_killed) = (ask(resolver, "killed"), ask(resolver, "killed"));
        let (left, stays) = (ask(resolver, "shared"), ask(resolver, "shared"));
        pila_runtime::schedule();
        for victim in [&killed, &also_killed, &left] {
            victim.kill().unwrap();
        }
        gate.store(true, Ordering::SeqCst);
        stays.join().unwrap().unwrap();
        for asker in busy {
            asker.join().unwrap().unwrap();
        }
        let asked = asked(log);
        assert!(!asked.contains(&"killed".to_owned()));
        assert!(asked.contains(&"shared".to_owned()));
    }

    #[test]
    fn what_was_begun_is_known_though_nobody_waits_any_more() {
        let (resolver, gate, log, _) = patient!();
        let asker = ask(resolver, "example.org");
        while asked(log).is_empty() {
            pila_runtime::schedule();
        }
        asker.kill().unwrap();
        let again = ask(resolver, "example.org");
        pila_runtime::schedule();
        gate.store(true, Ordering::SeqCst);
        again.join().unwrap().unwrap();
        assert_eq!(asked(log).len(), 1);
    }

    #[test]
    fn others_run_while_a_resolver_does_not_answer() {
        let (resolver, gate, _, _) = patient!();
        let asker = Rc::new(ask(resolver, "example.org"));
        let theirs = asker.clone();
        let killer = tasklet(move || {
            let turns = (0..20).map(|_| {
                let start = Instant::now();
                pila_runtime::sleep(Duration::from_millis(1));
                start.elapsed()
            });
            let longest = turns.max().unwrap();
            assert!(theirs.is_blocked());
            let start = Instant::now();
            theirs.kill().unwrap();
            (longest, start.elapsed())
        });
        let (longest, kill) = killer.join().unwrap();
        assert!(longest < Duration::from_millis(20), "{longest:?}");
        assert!(kill < Duration::from_millis(20), "{kill:?}");
        assert_eq!(pila_runtime::run().blocked, 0);
        gate.store(true, Ordering::SeqCst);
    }

    #[test]
    fn answers_are_kept_for_a_while_and_up_to_a_number() {
        let mut hosts = Hosts::default();
        let begun = Instant::now();
        for number in 0..2 * KEPT_AT_MOST {
            let now = begun + Duration::from_micros(number as u64);
            hosts.keep(format!("{number}").into(), Arc::new([]), now);
        }
        assert_eq!(hosts.known.len(), KEPT_AT_MOST);
        assert!(!hosts.known.contains_key("0") && !hosts.known.contains_key("1023"));
        assert!(hosts.known.contains_key("1024") && hosts.known.contains_key("2047"));
        hosts.keep("late".into(), Arc::new([]), begun + 2 * KEPT_FOR);
        assert_eq!(hosts.known.len(), 1);

        let mut state = State::new();
        state.hosts().keep("old".into(), Arc::new([]), begun - KEPT_FOR);
        state.hosts().keep("new".into(), Arc::new([]), begun);
        assert!(state.known("old").is_none());
        assert!(state.known("new").is_some());
    }
}
