//! What a program may do, and random ones.

/// One step of a script. Numbers are of scripts, of channels, and of milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Create(usize),
    Bind(usize),
    Insert(usize),
    Remove(usize),
    RunOne(usize),
    Switch(usize),
    Kill(usize),
    KillLater(usize),
    Throw(usize),
    ThrowLater(usize),
    /// Sets the block trap of someone.
    Trap(usize, bool),
    Schedule,
    ScheduleRemove,
    Send(usize),
    Receive(usize),
    TrySend(usize),
    TryReceive(usize),
    SendTimeout(usize, u64),
    ReceiveTimeout(usize, u64),
    SendError(usize),
    Select(Vec<Arm>),
    Close(usize),
    Open(usize),
    Prefer(usize, i8),
    ScheduleAll(usize, bool),
    Join(usize),
    Detach(usize),
    Sleep(u64),
    Run,
    /// Takes a `no_switch` guard.
    Hold,
    /// Drops the latest guard.
    Release,
    Panic,
}

/// One branch of a select.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arm {
    Send(usize),
    Receive(usize),
    After(u64),
}

/// What a tasklet does.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Op>,
    /// What a destructor of its closure does.
    pub(crate) last_words: Vec<Op>,
    /// Whether it catches its kill and goes on.
    pub(crate) stubborn: bool,
}

/// The first script is main's. Each tasklet is created at most once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    pub(crate) scripts: Vec<Script>,
    /// How much each channel keeps.
    pub(crate) capacities: Vec<usize>,
}

pub(crate) const MAIN: usize = 0;

pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub(crate) fn program(&mut self) -> Program {
        let count = 3 + self.below(5);
        let capacities: Vec<usize> =
            (0..1 + self.below(3)).map(|_| self.below(6).saturating_sub(3)).collect();
        let mut scripts: Vec<Script> =
            (0..count).map(|_| self.script(count, capacities.len())).collect();
        // Without company main's script would be dull.
        let created = (1..count).filter(|_| self.below(4) > 0).map(Op::Create);
        let steps = created.chain(scripts[MAIN].steps.clone()).chain([Op::Run]).collect();
        scripts[MAIN] = Script { steps, ..Script::default() };
        Program { scripts, capacities }
    }

    fn script(&mut self, count: usize, channels: usize) -> Script {
        let steps = (0..self.below(9)).map(|_| self.op(count, channels)).collect();
        let words = self.below(4).saturating_sub(1);
        let last_words = (0..words).map(|_| self.last_word(count, channels)).collect();
        Script { steps, last_words, stubborn: self.below(8) == 0 }
    }

    fn op(&mut self, count: usize, channels: usize) -> Op {
        let other = 1 + self.below(count - 1);
        let anyone = self.below(count);
        let channel = self.below(channels);
        let time = 1 + self.below(3) as u64;
        match self.below(86) {
            0..3 => Op::Create(other),
            3..6 => Op::Bind(other),
            6..11 => Op::Insert(anyone),
            11..14 => Op::Remove(anyone),
            14..19 => Op::Schedule,
            19..22 => Op::ScheduleRemove,
            22..27 => Op::Send(channel),
            27..32 => Op::Receive(channel),
            32 => Op::TrySend(channel),
            33 => Op::TryReceive(channel),
            34..36 => Op::SendTimeout(channel, time),
            36..38 => Op::ReceiveTimeout(channel, time),
            38 => Op::SendError(channel),
            39..48 => Op::Select(self.arms(channels)),
            48 => Op::Close(channel),
            49 => Op::Open(channel),
            50..52 => Op::Prefer(channel, self.below(3) as i8 - 1),
            52 => Op::ScheduleAll(channel, self.below(2) == 0),
            53..56 => Op::Join(other),
            56 => Op::Detach(other),
            57..60 => Op::Sleep(time),
            60..63 => Op::Run,
            63..66 => Op::RunOne(anyone),
            66 => Op::Switch(anyone),
            67..72 => Op::Kill(anyone),
            72..75 => Op::KillLater(anyone),
            75..78 => Op::Throw(anyone),
            78..80 => Op::ThrowLater(anyone),
            80 => Op::Trap(anyone, self.below(3) > 0),
            81..83 => Op::Hold,
            83..85 => Op::Release,
            _ => Op::Panic,
        }
    }

    /// Nothing that panics where it may not wait: destructors run during an unwinding too.
    fn last_word(&mut self, count: usize, channels: usize) -> Op {
        loop {
            let op = self.op(count, channels);
            let waits_for_time_alone = matches!(&op, Op::Select(arms)
                if arms.iter().all(|arm| matches!(arm, Arm::After(_))));
            if op != Op::Panic && !waits_for_time_alone {
                return op;
            }
        }
    }

    fn arms(&mut self, channels: usize) -> Vec<Arm> {
        let mut arm = || {
            let channel = self.below(channels);
            match self.below(7) {
                0..3 => Arm::Send(channel),
                3..6 => Arm::Receive(channel),
                _ => Arm::After(1 + self.below(3) as u64),
            }
        };
        let first = arm();
        let others: Vec<Arm> = (0..3).map(|_| arm()).collect();
        let count = self.below(4);
        [first].into_iter().chain(others.into_iter().take(count)).collect()
    }
}
