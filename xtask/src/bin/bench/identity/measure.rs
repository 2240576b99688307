//! Runs of one kind of request, and the figures of them.

use super::flows::{Flow, Site};
use crate::load::{self, Outcome, Plan};
use crate::options::{Engine, Options};
use crate::report::median;
use anyhow::{Result, anyhow, ensure};
use std::rc::Rc;
use std::time::Duration;

/// One that ends by itself ends long before.
const MOST: Duration = Duration::from_mins(15);

/// A server under load. `cpu` reads its CPU time, and that of its database.
#[derive(Clone)]
pub struct Side {
    pub site: Site,
    pub cpu: Rc<dyn Fn() -> (Duration, Duration)>,
}

/// How long runs are, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    pub warm_up: Duration,
    pub run: Duration,
    pub runs: usize,
}

impl Length {
    /// As the command line says.
    pub fn whole(options: &Options) -> Self {
        Self { warm_up: options.warm_up(), run: options.run, runs: options.runs_or(3) }
    }

    /// A third of it, for what varies less.
    pub fn short(options: &Options) -> Self {
        Self { run: options.run / 3, ..Self::whole(options) }
    }
}

/// Figures of each run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    rate: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    server: Vec<f64>,
    database: Vec<f64>,
    pub sent: u64,
}

impl Figures {
    fn add(&mut self, outcome: &Outcome, cpu: (Duration, Duration)) {
        let each = |used: Duration| used.as_secs_f64() * 1e6 / outcome.measured.max(1) as f64;
        self.rate.push(outcome.rate());
        self.p50.push(outcome.millis(50.0));
        self.p99.push(outcome.millis(99.0));
        self.server.push(each(cpu.0));
        self.database.push(each(cpu.1));
        self.sent += outcome.sent;
    }

    pub fn rate(&self) -> f64 {
        median(self.rate.clone())
    }

    /// Milliseconds.
    pub fn p50(&self) -> f64 {
        median(self.p50.clone())
    }

    /// Milliseconds.
    pub fn p99(&self) -> f64 {
        median(self.p99.clone())
    }

    /// Microseconds of the server's CPU time for each request.
    pub fn server(&self) -> f64 {
        median(self.server.clone())
    }

    /// A row: the engine, what was asked, connections, and the figures.
    pub fn row(&self, engine: Engine, what: &str, connections: usize) -> Vec<String> {
        let database = median(self.database.clone());
        vec![
            engine.name().to_owned(),
            what.to_owned(),
            connections.to_string(),
            format!("{:.0}", self.rate()),
            format!("{:.2}", self.p50()),
            format!("{:.2}", self.p99()),
            format!("{:.0}", self.server()),
            if engine == Engine::Sqlite { "–".to_owned() } else { format!("{database:.0}") },
        ]
    }

    /// One run more. An answer that is not as it must be is an error.
    pub fn run(&mut self, side: &Side, connections: usize, length: &Length, flow: Flow) -> Result<()> {
        let ends = load::Workload::end(&flow).is_some();
        let run = if ends { MOST } else { length.run };
        let plan = Plan { address: side.site.address, connections, warm_up: length.warm_up, run, first: 0 };
        let cpu = Rc::clone(&side.cpu);
        let (outcome, before, after) = load::run(&plan, Rc::new(flow), move || cpu())?;
        check(&outcome)?;
        let used = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        self.add(&outcome, used);
        Ok(())
    }
}

/// The columns of [`Figures::row`]; `what` is asked, `rate` is its unit.
pub fn head<'a>(what: &'a str, rate: &'a str) -> [&'a str; 8] {
    ["engine", what, "connections", rate, "p50 ms", "p99 ms", "CPU µs server", "CPU µs database"]
}

/// Every run of one kind of request.
pub fn runs(
    side: &Side,
    connections: usize,
    length: &Length,
    mut flow: impl FnMut() -> Result<Flow>,
) -> Result<Figures> {
    let mut figures = Figures::default();
    for _ in 0..length.runs {
        figures.run(side, connections, length, flow()?)?;
    }
    Ok(figures)
}

/// Runs of two servers by turns, so that what changes on the machine changes for both.
pub fn by_turns<const N: usize>(
    sides: [(&Side, &dyn Fn() -> Result<Flow>); N],
    connections: usize,
    length: &Length,
) -> Result<[Figures; N]> {
    let mut figures = [const { None::<Figures> }; N].map(Option::unwrap_or_default);
    for _ in 0..length.runs {
        for (figures, (side, flow)) in figures.iter_mut().zip(&sides) {
            figures.run(side, connections, length, flow()?)?;
        }
    }
    Ok(figures)
}

/// One run over one connection while another thread sends `other` over `connections`. Returns how many those were.
pub fn while_busy(
    figures: &mut Figures,
    (side, flow): (&Side, Flow),
    length: &Length,
    connections: usize,
    other: impl FnOnce() -> Flow + Send + 'static,
) -> Result<u64> {
    // It goes on a little longer, so that it is there to the end.
    let run = length.warm_up + length.run + Duration::from_millis(200);
    let plan = Plan { address: side.site.address, connections, warm_up: Duration::ZERO, run, first: 0 };
    let busy = std::thread::spawn(move || load::run(&plan, Rc::new(other()), || ()));
    let measured = figures.run(side, 1, length, flow);
    let (outcome, (), ()) = busy.join().map_err(|_| anyhow!("the other thread panicked"))??;
    measured?;
    check(&outcome)?;
    Ok(outcome.sent)
}

fn check(outcome: &Outcome) -> Result<()> {
    let Outcome { unexpected, errors, measured, .. } = outcome;
    ensure!(*unexpected == 0 && *errors == 0, "{unexpected} unexpected answers, {errors} errors");
    ensure!(*measured > 0, "nothing was measured");
    Ok(())
}
