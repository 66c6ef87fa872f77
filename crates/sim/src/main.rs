//! Runs simulations: `wharfie-sim --help` says how.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use wharfie_sim::{Mutation, Outcome, Setup, run};

const HELP: &str = "\
Whole clusters in virtual time, with faults.

wharfie-sim [--seeds N] [--nodes N] [--mutation NAME]   runs N seeds of clusters of all sizes
wharfie-sim --seed S [--nodes N] [--trace]              runs one, and tells what happens
wharfie-sim --figures [--nodes N] [--tasks N]           what placement, state and traffic cost
wharfie-sim --mutations                                 finds the seed that shows each mutation

  --nodes N      of the cluster; without it 3 to 20, by the seed
  --from S       the first seed
  --all          go on after a seed that shows something
  --calm         without faults
  --seconds N    for how long people and faults are at work
";

/// What is asked for.
#[derive(Default)]
struct Arguments {
    seed: Option<u64>,
    seeds: Option<u64>,
    from: u64,
    nodes: Option<usize>,
    seconds: Option<u64>,
    mutation: Option<Mutation>,
    mutations: bool,
    figures: bool,
    tasks: Option<usize>,
    calm: bool,
    all: bool,
    trace: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut all = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        let number = |text: String| {
            let read = text.parse::<u64>();
            read.map_err(|_| format!("{text:?} is no number"))
        };
        match flag.as_str() {
            "--seed" => all.seed = Some(number(value()?)?),
            "--seeds" => all.seeds = Some(number(value()?)?),
            "--from" => all.from = number(value()?)?,
            "--nodes" => all.nodes = usize::try_from(number(value()?)?).ok(),
            "--seconds" => all.seconds = Some(number(value()?)?),
            "--mutation" => {
                let name = value()?;
                let named = Mutation::named(&name);
                all.mutation = Some(named.ok_or(format!("there is no mutation {name}"))?);
            }
            "--figures" => all.figures = true,
            "--tasks" => all.tasks = usize::try_from(number(value()?)?).ok(),
            "--mutations" => all.mutations = true,
            "--all" => all.all = true,
            "--calm" => all.calm = true,
            "--trace" => all.trace = true,
            _ => return Err(HELP.to_owned()),
        }
    }
    Ok(all)
}

impl Arguments {
    fn setup(&self, seed: u64) -> Setup {
        let nodes = self.nodes.unwrap_or_else(|| wharfie_sim::size(seed));
        let mut setup = Setup::new(seed, nodes);
        setup.mutation = self.mutation;
        setup.trace = self.trace;
        setup.faults &= !self.calm;
        setup.seconds = self.seconds.unwrap_or(setup.seconds);
        setup
    }

    /// Runs seeds, each on one core, until one shows that something is wrong: the first one that
    /// does.
    fn search(&self, seeds: u64) -> Result<u64, Box<Outcome>> {
        let (next, wrong) = (AtomicU64::new(self.from), Mutex::new(Vec::new()));
        let end = self.from + seeds;
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let found = |w: &Vec<Outcome>| !self.all && !w.is_empty();
                // A thread that panicked fails the whole.
                if seed >= end || wrong.lock().is_ok_and(|w| found(&w)) {
                    return;
                }
                let outcome = run(&self.setup(seed));
                if let Some(violation) = outcome.violation.as_ref() {
                    if self.all {
                        let nodes = outcome.setup.nodes;
                        println!("seed {seed} with {nodes} nodes: {violation}");
                    }
                    wrong.lock().map(|mut w| w.push(outcome)).ok();
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            (0..cores).for_each(|_| drop(scope.spawn(work)));
        });
        let wrong = wrong.into_inner().unwrap_or_default();
        let first = wrong.into_iter().min_by_key(|o| o.setup.seed);
        first.map_or(Ok(seeds), |outcome| Err(Box::new(outcome)))
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    let began = Instant::now();
    if arguments.mutations {
        return mutations(&arguments);
    }
    if arguments.figures || arguments.tasks.is_some() {
        let (nodes, tasks) = (arguments.nodes.unwrap_or(1_000), arguments.tasks);
        wharfie_sim::figures::print(nodes, tasks.unwrap_or(100_000), arguments.figures);
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = arguments.seed {
        let outcome = run(&arguments.setup(seed));
        println!("{outcome}");
        println!("{:.1} s", began.elapsed().as_secs_f64());
        return ExitCode::from(u8::from(outcome.violation.is_some()));
    }
    match arguments.search(arguments.seeds.unwrap_or(200)) {
        Ok(seeds) => {
            let took = began.elapsed().as_secs_f64();
            println!("{seeds} seeds: all is well ({took:.1} s)");
            ExitCode::SUCCESS
        }
        Err(outcome) => {
            println!("{outcome}");
            ExitCode::FAILURE
        }
    }
}

fn mutations(arguments: &Arguments) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (name, mutation) in Mutation::ALL {
        let of = Arguments {
            mutation: Some(mutation),
            nodes: arguments.nodes,
            from: arguments.from,
            ..Arguments::default()
        };
        match of.search(arguments.seeds.unwrap_or(200)) {
            Ok(seeds) => {
                println!("{name}: not found in {seeds} seeds");
                code = ExitCode::FAILURE;
            }
            Err(outcome) => {
                let violation = outcome.violation.unwrap_or_default();
                println!("{name}: seed {}: {violation}", outcome.setup.seed);
            }
        }
    }
    code
}
