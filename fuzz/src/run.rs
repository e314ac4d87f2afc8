//! Runs a target on stable Rust: first what the corpus has, then what the mutator makes of it. An
//! input that went a new way is kept, which takes the place of coverage.
//!
//! Invariant: the corpus in memory is bounded; the first panic ends the run of its target.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::{Random, mutated};

/// Inputs kept at the most; from then on a new one takes the place of an old one.
const KEPT_MAX: usize = 512;

/// Ways remembered: some megabytes. From then on nothing counts as new.
const WAYS_MAX: usize = 1 << 18;

/// A panic of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// What brought it about.
    pub input: Vec<u8>,
    /// What it said.
    pub message: String,
}

/// A run of one target.
#[derive(Debug)]
pub struct Run {
    target: Target,
    random: Random,
    corpus: Vec<Vec<u8>>,
    /// Those of the corpus that have not run.
    waiting: Vec<Vec<u8>>,
    ways: HashSet<u64>,
    executions: u64,
    slowest: Duration,
}

impl Run {
    /// A run that begins with these inputs.
    pub fn new(target: Target, corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self {
            target,
            random: Random(seed),
            corpus: Vec::new(),
            waiting: corpus,
            ways: HashSet::new(),
            executions: 0,
            slowest: Duration::ZERO,
        }
    }

    /// Executes the target once.
    ///
    /// # Errors
    /// It panicked.
    pub fn step(&mut self) -> Result<(), Crash> {
        let is_seed = !self.waiting.is_empty();
        let input = match self.waiting.pop() {
            Some(input) => input,
            None if self.corpus.is_empty() => Vec::new(),
            None => {
                let one = &self.corpus[self.random.below(self.corpus.len())];
                let other = &self.corpus[self.random.below(self.corpus.len())];
                mutated(one, other, &mut self.random)
            }
        };
        let begin = Instant::now();
        let way = execute(&self.target, &input)?;
        self.slowest = self.slowest.max(begin.elapsed());
        self.executions += 1;
        let is_new = self.ways.len() < WAYS_MAX && self.ways.insert(way);
        if is_seed || is_new {
            self.keep(input);
        }
        Ok(())
    }

    fn keep(&mut self, input: Vec<u8>) {
        if self.corpus.len() < KEPT_MAX {
            self.corpus.push(input);
        } else {
            let at = self.random.below(KEPT_MAX);
            self.corpus[at] = input;
        }
    }

    /// How often the target was executed.
    pub fn executions(&self) -> u64 {
        self.executions
    }

    /// Ways that it went.
    pub fn ways(&self) -> usize {
        self.ways.len()
    }

    /// The slowest execution.
    pub fn slowest(&self) -> Duration {
        self.slowest
    }
}

/// Executes a target once; the way that the input went.
///
/// # Errors
/// It panicked.
pub fn execute(target: &Target, input: &[u8]) -> Result<u64, Crash> {
    // Nothing of a target outlives its call.
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| Crash {
        input: input.to_vec(),
        message: panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
            .unwrap_or_else(|| "a panic without a text".to_owned()),
    })
}
