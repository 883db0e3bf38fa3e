//! The filter of what is published: CEL over one device, as selectors of a DeviceClass have it.
//!
//! An expression is compiled and evaluated on a thread of its own, for two reasons. The parser
//! descends for each bracket and needs more stack than threads have; and nothing bounds what an
//! evaluation costs, so whoever asks waits for a bounded time and goes on without an answer.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::resource::v1;
use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use kube_cel::cel::{Context, Program, Value};

/// Deepest nesting of brackets. The parser gives up at 96 where the stack suffices.
const DEEPEST: usize = 32;
/// How deep macros such as `all` are nested at most: each goes through a list of up to thousands, so
/// that a third would keep a processor busy for hours, and nobody can take it from the thread.
const DEEPEST_MACRO: usize = 2;
/// Functions that make long lists of short ones, so that one chain of them would fill all memory.
const TOO_MUCH: [&str; 2] = ["flatten", "range"];
/// What functions are in, and no variable.
const NAMESPACES: [&str; 3] = ["lists", "math", "sets"];
/// Enough for the longest chain of operators that an expression can be, in a build without
/// optimisation. It is address space, not memory.
const STACK: usize = 512 << 20;
/// How long compiling, or judging all devices, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A filter, compiled.
#[derive(Clone, Debug)]
pub struct Filter {
    jobs: SyncSender<Job>,
}

/// What a filter says of a device. Whatever went wrong is told, and means no.
pub type Verdict = Result<bool, String>;

#[derive(Debug)]
struct Job {
    driver: String,
    devices: Vec<v1::Device>,
    deadline: Instant,
    answer: SyncSender<Vec<Verdict>>,
}

impl Filter {
    /// Compiles an expression. Blocks for some milliseconds, and never much longer than five seconds.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line: that it is no CEL, or that it is about something else than
    /// `device`.
    pub fn compile(source: &str) -> Result<Self, String> {
        if nesting(source) > DEEPEST {
            return Err(format!("brackets are nested deeper than {DEEPEST}"));
        }
        let (jobs, incoming) = mpsc::sync_channel::<Job>(1);
        let (compiled, outcome) = mpsc::sync_channel(1);
        let source = source.to_owned();
        let work = move || {
            let judge = match Judge::new(&source) {
                Ok(judge) => judge,
                Err(error) => return drop(compiled.send(Err(error))),
            };
            let _ = compiled.send(Ok(()));
            while let Ok(job) = incoming.recv() {
                // Whoever asked may have gone on.
                let _ = job.answer.send(judge.all(&job));
            }
        };
        thread::Builder::new()
            .name("filter".to_owned())
            .stack_size(STACK)
            .spawn(work)
            .map_err(|error| format!("no thread to evaluate it on: {error}"))?;
        outcome.recv_timeout(PATIENCE).map_err(no_answer)??;
        Ok(Self { jobs })
    }

    /// What the filter says of each device of `driver`, in their order. Blocks for at most five
    /// seconds.
    pub fn judge(&self, driver: &str, devices: Vec<v1::Device>) -> Vec<Verdict> {
        let (count, driver) = (devices.len(), driver.to_owned());
        let (answer, verdicts) = mpsc::sync_channel(1);
        let job = Job { driver, devices, deadline: Instant::now() + PATIENCE, answer };
        let asked = self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => "an earlier evaluation has not ended yet".to_owned(),
            TrySendError::Disconnected(_) => no_answer(RecvTimeoutError::Disconnected),
        });
        let answered = asked.and_then(|()| verdicts.recv_timeout(PATIENCE).map_err(no_answer));
        answered.unwrap_or_else(|error| vec![Err(error); count])
    }
}

fn no_answer(error: RecvTimeoutError) -> String {
    match error {
        RecvTimeoutError::Timeout => format!("takes longer than {} s", PATIENCE.as_secs()),
        RecvTimeoutError::Disconnected => "its evaluation ended by a bug".to_owned(),
    }
}

/// What lives on the thread.
struct Judge {
    program: Program,
    /// Texts of the expression. A domain of which a device has no attributes reads as an empty map
    /// (`cel.Compile` in `k8s.io/dynamic-resource-allocation/cel`, Kubernetes 1.36), so each text
    /// that could be a domain has to be there.
    texts: BTreeSet<String>,
    context: Context<'static>,
    quantity: Program,
    version: Program,
}

impl Judge {
    fn new(source: &str) -> Result<Self, String> {
        let compile = |source: &str| {
            Program::compile(source).map_err(|errors| errors.to_string().replace('\n', " "))
        };
        let program = compile(source)?;
        let mut words = Words::default();
        words.read(program.expression(), &mut vec!["device"]);
        if let Some(other) = words.unknown.first() {
            return Err(format!("{other:?} is not known here, only device is"));
        }
        if let Some(refused) = words.refused.first() {
            return Err(format!("{refused} cannot be had in a filter"));
        }
        if words.macros > DEEPEST_MACRO {
            return Err(format!("macros are nested deeper than {DEEPEST_MACRO}"));
        }
        let mut context = Context::default();
        context.register_all();
        let texts = words.texts.into_iter().map(str::to_owned).collect();
        let (quantity, version) = (compile("quantity(text)")?, compile("semver(text)")?);
        Ok(Self { program, texts, context, quantity, version })
    }

    fn all(&self, job: &Job) -> Vec<Verdict> {
        let one = |device: &v1::Device| {
            if Instant::now() > job.deadline {
                return Err(no_answer(RecvTimeoutError::Timeout));
            }
            self.one(&job.driver, device)
        };
        job.devices.iter().map(one).collect()
    }

    fn one(&self, driver: &str, device: &v1::Device) -> Verdict {
        let mut scope = self.context.new_inner_scope();
        scope.add_variable_from_value("device", self.variable(driver, device)?);
        match self.program.execute(&scope) {
            Ok(Value::Bool(verdict)) => Ok(verdict),
            Ok(_) => Err("the result is neither true nor false".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn variable(&self, driver: &str, device: &v1::Device) -> Result<Value, String> {
        let (mut attributes, mut capacity) = (self.domains(driver), self.domains(driver));
        for (name, attribute) in device.attributes.iter().flatten() {
            insert(&mut attributes, driver, name, self.value(attribute)?);
        }
        for (name, amount) in device.capacity.iter().flatten() {
            insert(&mut capacity, driver, name, self.made(&self.quantity, &amount.value.0)?);
        }
        let shared = device.allow_multiple_allocations == Some(true);
        Ok(Value::from(HashMap::from([
            ("driver", Value::from(driver)),
            ("attributes", Value::from(attributes)),
            ("capacity", Value::from(capacity)),
            ("allowMultipleAllocations", Value::Bool(shared)),
        ])))
    }

    fn domains(&self, driver: &str) -> Domains {
        let names = self.texts.iter().cloned().chain([driver.to_owned()]);
        names.map(|name| (name, HashMap::new())).collect()
    }

    fn value(&self, attribute: &v1::DeviceAttribute) -> Result<Value, String> {
        let v1::DeviceAttribute { bool, int, string, version, .. } = attribute;
        if let Some(flag) = bool {
            Ok(Value::Bool(*flag))
        } else if let Some(number) = int {
            Ok(Value::Int(*number))
        } else if let Some(text) = string {
            Ok(Value::from(text.as_str()))
        } else if let Some(version) = version {
            self.made(&self.version, version)
        } else {
            Err("an attribute has no value that is known here".to_owned())
        }
    }

    /// A value of a type that Kubernetes has added, which only its functions make.
    fn made(&self, maker: &Program, text: &str) -> Result<Value, String> {
        let mut scope = self.context.new_inner_scope();
        scope.add_variable_from_value("text", text);
        maker.execute(&scope).map_err(|error| format!("{text:?}: {error}"))
    }
}

type Domains = HashMap<String, HashMap<String, Value>>;

/// A name without a domain is in the driver's.
fn insert(domains: &mut Domains, driver: &str, name: &str, value: Value) {
    let (domain, name) = name.split_once('/').unwrap_or((driver, name));
    domains.entry(domain.to_owned()).or_default().insert(name.to_owned(), value);
}

/// What stands in an expression.
#[derive(Default)]
struct Words<'a> {
    texts: BTreeSet<&'a str>,
    /// Names that nothing around them has made known.
    unknown: BTreeSet<&'a str>,
    refused: BTreeSet<String>,
    /// How deep macros are nested, at most and where we are.
    macros: usize,
    depth: usize,
}

impl<'a> Words<'a> {
    /// Reads an expression, in which the names of `known` mean something. They are the same
    /// afterwards.
    fn read(&mut self, expression: &'a IdedExpr, known: &mut Vec<&'a str>) {
        match &expression.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                self.texts.insert(text.inner());
            }
            Expr::Ident(name) if !known.contains(&&**name) => {
                self.unknown.insert(name);
            }
            Expr::Call(call) => {
                if TOO_MUCH.contains(&call.func_name.as_str()) {
                    self.refused.insert(format!("{}()", call.func_name));
                }
                let is_namespace = |it: &&IdedExpr| matches!(&it.expr, Expr::Ident(name) if NAMESPACES.contains(&name.as_str()));
                let target = call.target.as_deref().filter(|it| !is_namespace(it));
                target.into_iter().chain(&call.args).for_each(|it| self.read(it, known));
            }
            Expr::Select(select) => self.read(&select.operand, known),
            Expr::List(list) => list.elements.iter().for_each(|it| self.read(it, known)),
            Expr::Map(map) => map.entries.iter().for_each(|it| self.entry(&it.expr, known)),
            // The evaluator ends in a panic over them (`src/objects.rs`, cel 0.13).
            Expr::Struct(made) => drop(self.refused.insert(format!("{}{{}}", made.type_name))),
            // A macro such as `all`: it names what it goes through.
            Expr::Comprehension(it) => {
                self.read(&it.iter_range, known);
                self.read(&it.accu_init, known);
                let before = known.len();
                known.extend([it.iter_var.as_str(), it.accu_var.as_str()]);
                known.extend(it.iter_var2.as_deref());
                self.depth += 1;
                self.macros = self.macros.max(self.depth);
                for part in [&it.loop_cond, &it.loop_step, &it.result] {
                    self.read(part, known);
                }
                self.depth -= 1;
                known.truncate(before);
            }
            Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        }
    }

    fn entry(&mut self, entry: &'a EntryExpr, known: &mut Vec<&'a str>) {
        match entry {
            EntryExpr::StructField(field) => self.read(&field.value, known),
            EntryExpr::MapEntry(entry) => {
                self.read(&entry.key, known);
                self.read(&entry.value, known);
            }
        }
    }
}

/// How deep brackets are nested; those in texts count as well.
fn nesting(source: &str) -> usize {
    let depths = source.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'(' | b'[' | b'{' => *depth += 1,
            b')' | b']' | b'}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dra::fixtures::{device, pool};
    use crate::dra::slices::{Terms, render};

    fn judge(source: &str) -> Verdict {
        let pool = pool();
        let slices = render(&[device("eth1")], &Terms::of(&pool), 1);
        let devices = slices.into_iter().filter_map(|slice| slice.spec.devices).flatten().collect();
        Filter::compile(source)?.judge("weir.dev", devices).remove(0)
    }

    #[test]
    fn a_filter_sees_what_a_selector_sees() {
        for fits in [
            "device.driver == 'weir.dev'",
            "device.attributes[\"weir.dev\"].ifName == 'eth1'",
            "device.attributes['weir.dev'].kernelVersion.isGreaterThan(semver('6.6.0'))",
            "!has(device.attributes['gce.dra.net'].block)",
            "['eth0', 'eth1'].exists(name, device.attributes['weir.dev'].ifName == name)",
            "!device.allowMultipleAllocations",
        ] {
            assert_eq!(judge(fits), Ok(true), "{fits}");
        }
        assert_eq!(judge("device.attributes['weir.dev'].ifName == 'eth2'"), Ok(false));
    }

    #[test]
    fn what_cannot_be_decided_is_an_error() {
        for (source, said) in [
            ("device.attributes['weir.dev'].nothing", "nothing"),
            ("device.driver", "neither true nor false"),
            ("1 / 0 == 1", "zero"),
        ] {
            let error = judge(source).unwrap_err();
            assert!(error.to_lowercase().contains(said), "{source}: {error}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_before_any_device_is_there() {
        for (source, said) in [
            ("device.driver ==", "error"),
            ("node.name == 'a'", "\"node\" is not known here"),
            ("attributes['a']", "\"attributes\" is not known here"),
        ] {
            let error = Filter::compile(source).unwrap_err();
            assert!(error.to_lowercase().contains(said) && !error.contains('\n'), "{error}");
        }
        let nested = |depth| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
        assert!(Filter::compile(&nested(32)).is_ok());
        assert!(Filter::compile(&nested(33)).unwrap_err().contains("deeper than 32"));
        assert!(Filter::compile(&nested(100_000)).is_err());
    }

    /// What is too much for the parser is for it to say, but must not end the process.
    #[test]
    fn no_filter_that_is_short_enough_overflows_the_stack() {
        let long = |part: &str, end: &str| part.repeat((10 * 1024 - end.len()) / part.len()) + end;
        for source in [
            long("1+", "1 == 1"),
            long("!", "true"),
            long("-", "1 == 1"),
            long("true ? true : ", "true"),
            long("true || ", "true"),
            format!("device{}", long(".a", "")),
            format!("'a'{}", long(".trim()", " == 'a'")),
        ] {
            if let Ok(filter) = Filter::compile(&source) {
                filter.judge("weir.dev", vec![v1::Device::default()]);
            }
        }
    }

    #[test]
    fn a_filter_that_takes_too_long_is_given_up() {
        let list = format!("[{}]", vec!["0"; 1000].join(","));
        let filter = format!("{list}.all(a, {list}.all(b, a + b == 0))");
        let filter = Filter::compile(&filter).unwrap();
        let verdicts = filter.judge("weir.dev", vec![v1::Device::default(); 10_000]);
        assert_eq!(verdicts.len(), 10_000);
        assert_eq!(verdicts.last(), Some(&Err("takes longer than 5 s".to_owned())));

        let deeper = "[0].all(a, [0].all(b, [0].all(c, a == b)))";
        assert!(Filter::compile(deeper).unwrap_err().contains("nested deeper than 2"));
        assert!(Filter::compile("[0].map(a, a).map(a, a).all(a, a == 0)").is_ok());
    }

    #[test]
    fn what_would_end_the_evaluator_or_fill_the_memory_is_refused() {
        for (source, refused) in [
            ("Foo{}", "Foo{}"),
            ("Foo{a: 1}.a == 1", "Foo{}"),
            ("[[0]].flatten().all(a, a == 0)", "flatten()"),
            ("lists.range(9).all(a, a >= 0)", "range()"),
        ] {
            let error = Filter::compile(source).unwrap_err();
            assert!(error.starts_with(refused), "{source}: {error}");
        }
        assert_eq!(
            judge("sets.contains(['eth1'], [device.attributes['weir.dev'].ifName])"),
            Ok(true)
        );
    }
}
