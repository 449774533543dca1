//! `Survey`: the ways tried one after the other, each in a process of its own, against a sink of its own.

use std::{
    cell::{Cell, RefCell},
    fs,
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use pila::{JoinError, Signal};
use serde::Serialize;

use crate::{
    bar::Bar,
    descriptors, document,
    options::Options,
    picture, plot,
    post::Task,
    race::Race,
    row::Row,
    sink_process::{Order, SinkProcess},
    table::{self, grouped},
    way_process,
    ways::{WAYS, Way},
};

/// How many thousand numbers are hashed for a mail in the table about computing, and of how many mails and which ways that is.
const WORK: u32 = 100;
const WORK_MAILS: u32 = 1000;
const WORK_WAYS: [&str; 5] = ["pool", "generators", "tasklets", "processes", "queues"];

/// How much address space a thread takes at least.
const STACK: u64 = 2 << 20;

/// The exit status of a program that was interrupted, as shells have it.
const INTERRUPTED: u8 = 130;

/// Where and how all is measured.
#[derive(Serialize)]
pub(crate) struct Setting {
    pub(crate) machine: String,
    pub(crate) server: String,
    pub(crate) delay_seconds: f64,
    pub(crate) workers: usize,
}

/// A table: what some ways do with one number of mails.
#[derive(Serialize)]
pub(crate) struct Section {
    pub(crate) mails: u32,
    /// How many thousand numbers are hashed for each of them.
    pub(crate) work: u32,
    pub(crate) rows: Vec<Row>,
}

impl Section {
    pub(crate) fn title(&self) -> String {
        let mails = if self.mails == 1 { "mail" } else { "mails" };
        match self.work {
            0 => format!("{} {mails}", grouped(self.mails)),
            work => format!(
                "{} {mails}, for each of which {} numbers are hashed",
                grouped(self.mails),
                grouped(u64::from(work) * 1000)
            ),
        }
    }
}

/// All that was measured so far.
#[derive(Serialize)]
pub(crate) struct Findings {
    #[serde(flatten)]
    pub(crate) setting: Setting,
    pub(crate) sections: Vec<Section>,
    pub(crate) race: Option<Race>,
}

/// A way to be tried, perhaps with a limit on its address space.
type Try = (&'static Way, Option<u64>);

struct Survey {
    options: Options,
    /// Somebody else's server, if the mails go there.
    server: Option<SocketAddr>,
    findings: RefCell<Findings>,
}

/// Does what the options ask for.
pub(crate) fn main(options: Options) -> ExitCode {
    match Survey::new(options).and_then(|survey| survey.conduct()) {
        Ok(code) => code,
        // Whoever reads this has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("send_mail: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Survey {
    fn new(options: Options) -> io::Result<Self> {
        let server = options.server.as_ref().map(|server| reachable(&server.0, options.timeout));
        let server = server.transpose()?;
        let setting = Setting::new(&options, server);
        let findings = RefCell::new(Findings { setting, sections: Vec::new(), race: None });
        Ok(Self { options, server, findings })
    }

    /// Tries all there is to try, or as much as there is time for until somebody interrupts it.
    fn conduct(self) -> io::Result<ExitCode> {
        self.warn_of_descriptors();
        let signals = pila::signals([Signal::INTERRUPT, Signal::TERMINATE])?;
        let survey = Rc::new(self);
        let (interrupted, ours) = (Rc::new(Cell::new(false)), survey.clone());
        let measuring = pila::tasklet(move || ours.measure_all());
        let (victim, flag) = (pila::Handle::clone(&measuring), interrupted.clone());
        pila::tasklet(move || {
            if signals.receive().is_ok() {
                flag.set(true);
                victim.kill().ok();
            }
        });
        match measuring.join() {
            Ok(outcome) => outcome?,
            Err(JoinError::Killed) if interrupted.get() => {}
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        if interrupted.get() {
            eprintln!("send_mail: interrupted");
            return Ok(INTERRUPTED.into());
        }
        survey.report()?;
        Ok(if survey.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn warn_of_descriptors(&self) {
        let most = self.options.sizes().into_iter().max().unwrap_or(0);
        match descriptors::raise_limit() {
            Some(limit) if limit < u64::from(most) => eprintln!(
                "send_mail: the limit on descriptors allows {} connections at once: ways that open more will fail, \
                 but for those of pila, which wait; see `ulimit -Hn`",
                grouped(limit)
            ),
            _ => {}
        }
    }

    fn measure_all(&self) -> io::Result<()> {
        self.show(|findings| table::head(&findings.setting))?;
        let sizes = self.options.sizes();
        let most = sizes.iter().copied().max().unwrap_or(0);
        for mails in sizes {
            self.measure_section(mails, self.options.work.unwrap_or(0), self.tries(mails))?;
        }
        if self.options.ways.is_empty() && self.options.work.is_none() {
            let ways = WORK_WAYS.iter().filter_map(|name| Way::find(name).ok());
            let tries = ways.map(|way| (way, None)).collect();
            self.measure_section(most.min(WORK_MAILS), WORK, tries)?;
        }
        if self.options.ways.is_empty() || self.options.ways.iter().any(|way| way == "threads") {
            self.findings.borrow_mut().race = Some(Race::run());
            self.show(|findings| findings.race.as_ref().map(table::race).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Which ways to try with so many mails.
    fn tries(&self, mails: u32) -> Vec<Try> {
        if !self.options.ways.is_empty() {
            let ways = self.options.ways.iter().filter_map(|name| Way::find(name).ok());
            return ways.map(|way| (way, self.options.thread_limit)).collect();
        }
        let limit = self.options.limit_of_threads();
        let is_reached = self.options.thread_limit.is_some() || u64::from(mails) * STACK > limit;
        let limited = |way: &Way| is_reached && way.name == "threads";
        let tries = WAYS
            .iter()
            .flat_map(|way| [Some((way, None)), limited(way).then_some((way, Some(limit)))]);
        tries.flatten().collect()
    }

    fn measure_section(&self, mails: u32, work: u32, tries: Vec<Try>) -> io::Result<()> {
        self.findings.borrow_mut().sections.push(Section { mails, work, rows: Vec::new() });
        self.show(|findings| findings.sections.last().map(table::title).unwrap_or_default())?;
        for (way, address_space) in tries {
            let row = self.measure(way, mails, work, address_space)?;
            self.show(|_| table::row(&row))?;
            let mut findings = self.findings.borrow_mut();
            findings.sections.last_mut().expect("it was begun").rows.push(row);
        }
        Ok(())
    }

    fn measure(
        &self,
        way: &'static Way,
        mails: u32,
        work: u32,
        address_space: Option<u64>,
    ) -> io::Result<Row> {
        let mut sink = match self.server {
            Some(_) => None,
            None => Some(SinkProcess::start(&self.order(mails))?),
        };
        let server = sink.as_ref().map(|sink| sink.address).or(self.server);
        let task =
            self.task(way, server.expect("it is one or the other"), mails, work, address_space);
        let bar = Bar::new(way.name, sink.as_ref().map(|_| mails));
        let ending = way_process::run(&task, || {
            if let (Some(sink), true) = (&mut sink, bar.is_due()) {
                let report = sink.ask()?;
                bar.show(report.once + report.doubled);
            }
            Ok(())
        })?;
        let report = sink.map(SinkProcess::finish).transpose()?;
        Ok(Row::new(way, &task, ending, report.as_ref()))
    }

    fn order(&self, mails: u32) -> Order {
        let (body_size, delay) = (self.options.body_size as usize, self.options.delay);
        Order { mails, body_size, greeting_delay: delay, reply_delay: delay }
    }

    fn task(
        &self,
        way: &Way,
        server: SocketAddr,
        mails: u32,
        work: u32,
        address_space: Option<u64>,
    ) -> Task {
        let Options { body_size, from, to, timeout, patience, .. } = &self.options;
        Task {
            way: way.name.to_string(),
            server,
            mails,
            body_size: *body_size as usize,
            from: from.clone(),
            to: to.clone(),
            timeout: *timeout,
            work,
            workers: self.options.workers(),
            patience: *patience,
            address_space,
        }
    }

    /// Prints a part of the tables, unless they are wanted in another form.
    fn show(&self, text: impl FnOnce(&Findings) -> String) -> io::Result<()> {
        if self.options.json || self.options.markdown {
            return Ok(());
        }
        say(&text(&self.findings.borrow()))
    }

    /// What is printed and written when all is measured.
    fn report(&self) -> io::Result<()> {
        let findings = self.findings.borrow();
        let Findings { setting, sections, .. } = &*findings;
        if self.options.json {
            say(&(serde_json::to_string_pretty(&*findings)? + "\n"))?;
        }
        if self.options.markdown {
            say(&table::markdown(&findings))?;
        }
        let written =
            |path: &Path, error: String| io::Error::other(format!("{}: {error}", path.display()));
        for path in &self.options.documents {
            document::refresh(path, &findings).map_err(|error| written(path, error.to_string()))?;
        }
        if let Some(path) = &self.options.picture {
            let svg = picture::terminal(&findings.text());
            fs::write(path, svg).map_err(|error| written(path, error.to_string()))?;
        }
        if let Some(path) = &self.options.svg {
            plot::draw(path, sections, &setting.subtitle())
                .map_err(|error| written(path, error.to_string()))?;
        }
        Ok(())
    }

    fn is_as_expected(&self) -> bool {
        let findings = self.findings.borrow();
        findings.sections.iter().flat_map(|section| &section.rows).all(|row| row.is_as_expected)
    }
}

impl Findings {
    /// What was shown on the terminal.
    fn text(&self) -> String {
        let mut text =
            format!("$ cargo run --release --example send_mail\n{}", table::head(&self.setting));
        for section in &self.sections {
            text += &table::title(section);
            section.rows.iter().for_each(|row| text += &table::row(row));
        }
        text + &self.race.as_ref().map(table::race).unwrap_or_default()
    }
}

impl Setting {
    fn new(options: &Options, server: Option<SocketAddr>) -> Self {
        let server = match server {
            Some(server) => format!("The server is {server}"),
            None => format!(
                "The server answers everything {} ms late",
                options.delay.as_secs_f64() * 1000.0
            ),
        };
        Self {
            machine: machine(),
            server,
            delay_seconds: options.delay.as_secs_f64(),
            workers: options.workers(),
        }
    }

    fn subtitle(&self) -> String {
        format!("{}. {}.", self.machine, self.server)
    }
}

/// Prints, and is told when nobody reads it.
fn say(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// What this is measured on.
fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let plural = if cores == 1 { "" } else { "s" };
    format!("{}, {cores} core{plural}, Linux {kernel}", model.unwrap_or("An unknown processor"))
}

/// The first of the addresses that somebody listens at.
fn reachable(addresses: &[SocketAddr], limit: Duration) -> io::Result<SocketAddr> {
    let mut complaint = String::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, limit) {
            Ok(_) => return Ok(*address),
            Err(error) => complaint = format!("there is no server at {address}: {error}"),
        }
    }
    Err(io::Error::other(complaint))
}
