//! One run: two hosts, their conversations, the network between them, under virtual time, from one seed.

use mtproxy_tcp::secrets::Secrets;
use mtproxy_tcp::settings::Settings;
use mtproxy_tcp::stack::Stack;
use mtproxy_tcp::time::Instant;
use mtproxy_tests::dice::Dice;

use crate::app::App;
use crate::half::Half;
use crate::host::Host;
use crate::network::Path;
use crate::plan::{FIRST_PORT, Plan, SECOND, Wraps};
use crate::sabotage::Sabotage;
use crate::schedule::{Moment, Schedule};
use crate::tally::Tally;
use crate::violation::{Checker, Judge, Violation};
use crate::wire::View;

/// How much later than asked a driver may look at its stack's timers.
const LATENESS_MAX: u64 = 20_000;
/// A conversation ends within this time once it has begun and the network is calm.
pub(crate) const PATIENCE: u64 = 400 * SECOND;
/// More timeouts of one host within a virtual second than any run needs.
const TIMEOUTS_PER_SECOND_MAX: u64 = 5_000;
/// Farthest timer of something unacknowledged: RTO max (RFC 6298 section 2.5 with our 120 s), and lateness.
const TIMER_MAX: u64 = 125 * SECOND;
/// No sane run goes on for longer.
const VIRTUAL_TIME_MAX: u64 = 4 * 3600 * SECOND;

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) judge: Judge,
    /// Gives the stacks other secrets than the seed does.
    pub(crate) is_unrepeatable: bool,
    /// Prints what happens.
    pub(crate) is_traced: bool,
}

pub(crate) struct Simulation {
    pub(crate) options: Options,
    pub(crate) plan: Plan,
    pub(crate) schedule: Schedule,
    pub(crate) hosts: [Host; 2],
    /// The path to each host.
    pub(crate) paths: [Path; 2],
    /// Both ends of each conversation: as their drivers see it, and on the wire.
    pub(crate) apps: Vec<[App; 2]>,
    pub(crate) halves: Vec<[Half; 2]>,
    /// The newest conversation of each connector's port.
    pub(crate) by_port: Vec<usize>,
    /// Packets that did not arrive whole, by conversation.
    pub(crate) losses: Vec<u64>,
    pub(crate) storm_left: u64,
    pub(crate) clock_origin: u64,
    pub(crate) dice: Dice,
    pub(crate) tally: Tally,
}

/// Runs to the end, or to the first violation.
pub(crate) fn run(options: Options) -> Result<Tally, Violation> {
    let mut dice = Dice::new(options.seed);
    let plan = Plan::draw(&mut dice.fork());
    run_plan(options, plan, dice)
}

/// Runs a plan that may not be the seed's own.
pub(crate) fn run_plan(options: Options, plan: Plan, dice: Dice) -> Result<Tally, Violation> {
    let mut simulation = Simulation::new(options, plan, dice);
    simulation.begin();
    while simulation.step()? {}
    simulation.finish()
}

/// Where the clock must begin for the plan's numbers to wrap around.
fn clock_origin(plan: &Plan, secrets: &Secrets, dice: &mut Dice) -> u64 {
    let conversation = &plan.conversations[0];
    let [local, remote] = conversation.addresses;
    let total = conversation.scripts[0].total as u32;
    match plan.wraps {
        Wraps::Nothing => plan.clock_origin,
        Wraps::Sequence => {
            // The clock of ISNs has ticks of 4 microseconds (RFC 6528).
            let isn = secrets.isn(Instant::from_micros(conversation.at), local, remote).0;
            let before_wrap = dice.below(total as usize + 2) as u32;
            u64::from(0u32.wrapping_sub(isn).wrapping_sub(before_wrap)) * 4
        }
        Wraps::Timestamps => {
            let offset = secrets.timestamp_offset(local, remote);
            let before_wrap = dice.below(3_000) as u32;
            u64::from(0u32.wrapping_sub(offset).wrapping_sub(before_wrap)) * 1_000
        }
    }
}

impl Simulation {
    fn new(options: Options, plan: Plan, mut dice: Dice) -> Self {
        let mut seeds = plan.secret_seeds;
        seeds[0][0] ^= u8::from(options.is_unrepeatable);
        let connector = plan.conversations.first().map_or(0, |conversation| conversation.hosts[0]);
        let secrets = Secrets::from_seed(plan.secret_seeds[connector]);
        let clock_origin =
            if plan.conversations.is_empty() { 0 } else { clock_origin(&plan, &secrets, &mut dice) };
        let now = Instant::from_micros(clock_origin);
        let hosts = [0, 1].map(|host| {
            let settings: Settings = plan.limits[host].settings();
            let stack = Stack::new(settings, Secrets::from_seed(seeds[host]), now);
            Host::new(stack, &plan.shapes[host])
        });
        let paths = [0, 1]
            .map(|host| Path::new(plan.paths[host].clone(), dice.fork(), plan.shapes[host].header.len()));
        let count = plan.conversations.len();
        Self {
            options,
            schedule: Schedule::default(),
            hosts,
            paths,
            apps: (0..count).map(|_| <[App; 2]>::default()).collect(),
            halves: (0..count).map(|_| <[Half; 2]>::default()).collect(),
            by_port: (0..count).collect(),
            losses: vec![0; count],
            storm_left: plan.storm.map_or(0, |storm| storm.count),
            clock_origin,
            dice,
            tally: Tally::of_one_run(),
            plan,
        }
    }

    fn begin(&mut self) {
        self.say(|| format!("{:#?}", self.plan));
        for (conversation, planned) in self.plan.conversations.iter().enumerate() {
            self.schedule.at(planned.at, Moment::Connect { conversation });
            let late = planned.at.max(self.plan.calm_at) + PATIENCE;
            self.schedule.at(late, Moment::Judge { conversation });
            for after in &planned.forgeries {
                self.schedule.at(planned.at + after, Moment::Forge { conversation });
            }
        }
        if let Some((host, at)) = self.plan.stop {
            self.schedule.at(at, Moment::Stop { host });
        }
        for (host, device) in self.plan.devices.iter().enumerate() {
            if let Some((from, until)) = device.unrouted {
                self.schedule.at(from, Moment::Route { host, is_there: false });
                self.schedule.at(until, Moment::Route { host, is_there: true });
            }
        }
        if self.plan.storm.is_some() {
            self.schedule.at(0, Moment::Storm);
        }
        let listens = self.plan.listeners();
        for (host, at) in listens {
            self.hosts[host].stack.listen(at);
        }
        for host in &mut self.hosts {
            host.link.refill();
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant::from_micros(self.clock_origin + self.schedule.now)
    }

    pub(crate) fn require(
        &self,
        holds: bool,
        checker: Checker,
        what: impl FnOnce() -> String,
    ) -> Result<(), Violation> {
        self.options.judge.require(holds, checker, || format!("at {} us: {}", self.schedule.now, what()))
    }

    pub(crate) fn has_sabotage(&self, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage)
    }

    /// One line of the trace.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.options.is_traced {
            crate::say(&format!("{:>12.6} {}", self.schedule.now as f64 / 1e6, what()));
        }
    }

    /// Which conversation's segment this is, and which end sends it.
    pub(crate) fn whose(&self, view: &View) -> Option<(usize, usize)> {
        let of = |port: u16| self.by_port.get(usize::from(port.checked_sub(FIRST_PORT)?)).copied();
        let connector = of(view.source.port()).map(|conversation| (conversation, 0));
        connector.or_else(|| Some((of(view.destination.port())?, 1)))
    }

    /// When a host's stack wants to be asked next, since the run began.
    pub(crate) fn due_of(&self, host: usize) -> Option<u64> {
        if self.has_sabotage(Sabotage::SleepsThroughTimeouts) && self.schedule.now > SECOND {
            return None;
        }
        if self.has_sabotage(Sabotage::SpinsOnTimeouts) {
            return Some(self.schedule.now);
        }
        let due = self.hosts[host].stack.next_timeout()?;
        Some(due.as_micros().saturating_sub(self.clock_origin).max(self.schedule.now))
    }

    /// One moment, or one look at the timers. False: nothing will ever happen again.
    fn step(&mut self) -> Result<bool, Violation> {
        let due = [0, 1].into_iter().filter_map(|host| Some((self.due_of(host)?, host))).min();
        let next = self.schedule.next_at();
        let quiet_until = match (due, next) {
            (Some((due, _)), Some(next)) => due.min(next),
            (Some((due, _)), None) => due,
            (None, Some(next)) => next,
            (None, None) => return Ok(false),
        };
        self.require(quiet_until < VIRTUAL_TIME_MAX, Checker::Progress, || "no end".to_owned())?;
        if quiet_until > self.schedule.now + SECOND {
            self.check_timers()?;
        }
        if let Some((due, host)) = due {
            let is_first = next.is_none_or(|next| due <= next);
            let may_be_late = next.is_some_and(|next| next < due + LATENESS_MAX);
            if is_first && !(may_be_late && self.dice.percent(10)) {
                self.schedule.move_to(due);
                self.time_out(host)?;
                return Ok(true);
            }
        }
        let Some(moment) = self.schedule.pop() else { return Ok(false) };
        self.happens(moment)?;
        Ok(true)
    }

    fn time_out(&mut self, host: usize) -> Result<(), Violation> {
        let second = self.schedule.now / SECOND;
        let timeouts = &mut self.hosts[host].timeouts;
        *timeouts = if timeouts.0 == second { (second, timeouts.1 + 1) } else { (second, 1) };
        let count = timeouts.1;
        self.require(count < TIMEOUTS_PER_SECOND_MAX, Checker::Spinning, || {
            format!("host {host} timed out {count} times within a second")
        })?;
        let now = self.instant();
        let Host { stack, link, .. } = &mut self.hosts[host];
        stack.time_out(now, link);
        let is_spinning = self.hosts[host].stack.next_timeout().is_some_and(|next| next <= now);
        self.require(!is_spinning, Checker::Spinning, || {
            format!("host {host} wants to be asked again at once")
        })?;
        self.settle(host)
    }

    fn happens(&mut self, moment: Moment) -> Result<(), Violation> {
        match moment {
            Moment::Arrive { host, packet } => {
                self.arrive(host, *packet);
                Ok(())
            }
            Moment::Poll { host } => self.poll(host),
            Moment::Complete { host, frame } => self.complete(host, frame),
            Moment::Connect { conversation } => self.connect(conversation),
            Moment::Act { conversation, end } => self.act(conversation, end),
            Moment::Storm => {
                self.storm();
                Ok(())
            }
            Moment::Forge { conversation } => self.forge(conversation),
            Moment::Stop { host } => self.stop(host),
            Moment::Route { host, is_there } => self.route(host, is_there),
            Moment::Judge { conversation } => self.judge(conversation),
        }
    }

    /// Whoever waits for an acknowledgement has a timer, and who has nothing has none.
    fn check_timers(&self) -> Result<(), Violation> {
        for (index, host) in self.hosts.iter().enumerate() {
            let due = self.due_of(index);
            let stack = &host.stack;
            if stack.connection_count() + stack.half_open_count() + stack.time_wait_count() == 0 {
                self.require(due.is_none(), Checker::Timers, || {
                    format!("host {index} is idle, with a timer at {due:?}")
                })?;
            }
            let waits = (0..self.apps.len()).find(|&conversation| {
                let ends = self.plan.conversations[conversation].hosts;
                let end = usize::from(ends[1] == index);
                self.apps[conversation][end].live().is_some()
                    && self.halves[conversation][end].has_unacknowledged()
            });
            if let Some(conversation) = waits {
                let is_bounded = due.is_some_and(|due| due <= self.schedule.now + TIMER_MAX);
                self.require(is_bounded, Checker::Timers, || {
                    format!("conversation {conversation} waits for an ACK, host {index} for {due:?}")
                })?;
            }
        }
        Ok(())
    }
}
