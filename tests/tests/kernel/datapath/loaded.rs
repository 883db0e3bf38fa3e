//! Programs that are loaded but not attached: what they make of a packet, and all that they count.

use std::io;
use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::maps::{Array, Map, PerCpuArray};
use aya::programs::{Program, ProgramError, TestRun as _, TestRunOptions};
use common::{Bucket, Count, Counters, Direction, Used, names};
use driver::datapath::{Stage, load_for_test};
use driver::model::{DatapathSpec, DirectionFilter};
use driver::policy::Compiled;
use driver::sys::bpf;
use tests::oracle::Answer;

/// One of the programs, and how it gets its packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Entry {
    Xdp,
    /// With so many bytes, at most, in the first buffer.
    XdpFrags(usize),
    Ingress,
    Egress,
}

impl Entry {
    fn name(self) -> &'static str {
        match self {
            Self::Xdp => names::XDP,
            Self::XdpFrags(_) => names::XDP_FRAGS,
            Self::Ingress => names::INGRESS,
            Self::Egress => names::EGRESS,
        }
    }

    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::Xdp | Self::XdpFrags(_) | Self::Ingress => Direction::Ingress,
            Self::Egress => Direction::Egress,
        }
    }

    /// Whether the kernel's test runs give `frame` to the program. They make no socket buffer of what is
    /// too short for the IP header that it announces (`bpf_prog_test_run_skb()`, Linux 6.17).
    pub(crate) fn takes(self, frame: &[u8]) -> bool {
        let least = match frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 14,
        };
        matches!(self, Self::Xdp | Self::XdpFrags(_)) || frame.len() >= least
    }

    /// What the program answers for a packet that passes, and for one that does not.
    fn answers(self) -> [u32; 2] {
        match self {
            Self::Xdp | Self::XdpFrags(_) => [2, 1],
            // TCX_NEXT is -1.
            Self::Ingress | Self::Egress => [u32::MAX, 2],
        }
    }
}

/// The programs of one attachment, and what they should have counted so far.
pub(crate) struct Loaded {
    programs: Programs,
    counters: [Counters; 2],
    /// By rule, those of ingress first.
    hits: Vec<Count>,
    first_rule: [usize; 2],
    generation: u64,
}

enum Programs {
    /// For one filter, as the driver loads them.
    Exact(Ebpf),
    /// For one filter after the other.
    Stage(Stage),
}

impl Loaded {
    /// As the driver loads them for `spec`.
    pub(crate) fn exact(spec: &DatapathSpec) -> Self {
        let rules = |of: &Option<DirectionFilter>| of.as_ref().map_or(0, |of| of.rules.len());
        let filter = spec.filter.clone().unwrap_or_default();
        let rules = [rules(&filter.ingress), rules(&filter.egress)];
        let programs = Programs::Exact(load_for_test(spec).unwrap());
        Self::new(programs, rules, spec.generation)
    }

    /// For all filters that are `general` in the same way.
    pub(crate) fn on_stage(spec: &DatapathSpec, general: &Compiled) -> Self {
        let programs = Programs::Stage(Stage::load(spec, general).unwrap());
        let rules = [general.ingress.rules.len(), general.egress.rules.len()];
        Self::new(programs, rules, spec.generation)
    }

    fn new(mut programs: Programs, [ingress, egress]: [usize; 2], generation: u32) -> Self {
        for (_, program) in programs.ebpf_mut().programs_mut() {
            match program {
                Program::Xdp(program) => program.load().unwrap(),
                Program::SchedClassifier(program) => program.load().unwrap(),
                other => panic!("unexpected program {other:?}"),
            }
        }
        Self {
            programs,
            counters: [Counters::default(); 2],
            hits: vec![Count::default(); ingress + egress],
            first_rule: [0, ingress],
            generation: generation.into(),
        }
    }

    /// Puts the next filter on the stage, before which nothing has happened.
    pub(crate) fn put(&mut self, general: &Compiled) {
        let Programs::Stage(stage) = &mut self.programs else { panic!("made for one filter") };
        stage.write(general).unwrap();
        if general.ingress.used.with(general.egress.used).has(Used::STATEFUL) {
            let map = stage.ebpf_mut().map_mut(names::STATE).unwrap();
            let mut buckets = Array::<_, Bucket>::try_from(map).unwrap();
            for number in 0..buckets.len() {
                buckets.set(number, Bucket::default(), 0).unwrap();
            }
        }
    }

    /// Runs a program on `frame`, which should become of what `expected` says, and looks what it
    /// answers and counts. What its rules matched is looked at by [`Self::check_hits`].
    ///
    /// # Errors
    ///
    /// What is different.
    pub(crate) fn run(
        &mut self,
        entry: Entry,
        frame: &[u8],
        expected: &Answer,
    ) -> Result<(), String> {
        let name = entry.name();
        let answered =
            self.answer(entry, frame).map_err(|error| format!("{name} does not run: {error}"))?;
        let [passed, dropped] = entry.answers();
        if answered != if expected.passes { passed } else { dropped } {
            return Err(format!("{name} answers {}", answered.cast_signed()));
        }
        self.expect(entry.direction(), frame.len() as u64, expected);
        let counted = self.read_counters(entry.direction());
        let wanted = self.counters[entry.direction() as usize];
        if counted == wanted {
            Ok(())
        } else {
            Err(format!("{name} counts {counted:?}\nand not {wanted:?}"))
        }
    }

    fn answer(&self, entry: Entry, frame: &[u8]) -> Result<u32, ProgramError> {
        let mut options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::new() };
        let context;
        if let Entry::XdpFrags(first) = entry {
            let first = u32::try_from(first.min(frame.len())).unwrap();
            // `struct xdp_md`: where data begins and ends; the rest follows behind.
            context = [0, first, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
            options.ctx_in = Some(&context);
        }
        let result = match self.programs.ebpf().program(entry.name()).unwrap() {
            Program::Xdp(program) => program.test_run(options),
            Program::SchedClassifier(program) => program.test_run(options),
            other => panic!("unexpected program {other:?}"),
        };
        Ok(result?.return_value)
    }

    /// Adds a packet to what should be counted.
    fn expect(&mut self, direction: Direction, len: u64, expected: &Answer) {
        let counters = &mut self.counters[direction as usize];
        counters.count(expected.verdict, expected.protocol, 1, len);
        counters.count_size(u32::try_from(len).unwrap(), 1);
        for &event in &expected.tcp {
            counters.tcp[event as usize] += 1;
        }
        counters.fragments += u64::from(expected.fragment);
        counters.tagged += u64::from(expected.tagged);
        counters.replies += u64::from(expected.reply);
        counters.generation = self.generation;
        for rule in &expected.hits {
            self.hits[self.first_rule[direction as usize] + rule].add(1, len);
        }
    }

    /// What was counted, but for flows, of which the oracle knows nothing.
    fn read_counters(&self, direction: Direction) -> Counters {
        let map = self.programs.ebpf().map(names::COUNTERS).unwrap();
        let map = PerCpuArray::<_, Counters>::try_from(map).unwrap();
        let mut sum = Counters::default();
        for cpu in map.get(&(direction as u32), 0).unwrap().iter() {
            sum.merge(cpu);
        }
        Counters { flows_evicted: 0, flows_exported: 0, flows_lost: 0, ..sum }
    }

    /// Takes what rules matched for what they should have.
    pub(crate) fn forget_hits(&mut self) {
        self.hits = self.read_hits().unwrap();
    }

    /// Looks what each rule matched until now.
    ///
    /// # Errors
    ///
    /// What is different.
    pub(crate) fn check_hits(&self) -> Result<(), String> {
        let found = self.read_hits().map_err(|error| error.to_string())?;
        let wrong: Vec<_> = (0..)
            .zip(found.iter().zip(&self.hits))
            .filter(|(_, (found, wanted))| found != wanted)
            .map(|(rule, (found, wanted)): (usize, _)| {
                format!("rule {rule} matched {found:?}, not {wanted:?}")
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    fn read_hits(&self) -> io::Result<Vec<Count>> {
        let Some(Map::PerCpuArray(map)) = self.programs.ebpf().map(names::HITS) else {
            return Err(io::Error::other("a map of another kind"));
        };
        let mut hits = Vec::new();
        bpf::for_each_of_cpus(map.fd().as_fd(), |_, cpus: &[Count]| {
            let mut sum = Count::default();
            for cpu in cpus {
                sum.add(cpu.packets, cpu.bytes);
            }
            hits.push(sum);
        })?;
        // Without any rule there is room for one all the same.
        hits.truncate(self.hits.len());
        Ok(hits)
    }
}

impl Programs {
    fn ebpf(&self) -> &Ebpf {
        match self {
            Self::Exact(ebpf) => ebpf,
            Self::Stage(stage) => stage.ebpf(),
        }
    }

    fn ebpf_mut(&mut self) -> &mut Ebpf {
        match self {
            Self::Exact(ebpf) => ebpf,
            Self::Stage(stage) => stage.ebpf_mut(),
        }
    }
}
