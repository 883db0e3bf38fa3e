//! One expression, compiled, and what it may consist of.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::resource::v1;
use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use kube_cel::cel::{Context, Program, Value};

use super::{Undecided, Verdict};

/// Deepest nesting of brackets. The parser gives up at 96 where the stack suffices.
const DEEPEST: usize = 32;
/// How deep macros such as `all` are nested at most: each goes through a list of up to thousands, so
/// that a third would keep a processor busy for hours, and nobody can take it from the thread.
const DEEPEST_MACRO: usize = 2;
/// Functions that make long lists of short ones, so that one chain of them would fill all memory.
const TOO_MUCH: [&str; 2] = ["flatten", "range"];
/// What functions are in, and no variable.
const NAMESPACES: [&str; 3] = ["lists", "math", "sets"];

/// What lives on a filter's thread.
pub(super) struct Judge {
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
    pub(super) fn new(source: &str) -> Result<Self, String> {
        if nesting(source) > DEEPEST {
            return Err(format!("brackets are nested deeper than {DEEPEST}"));
        }
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
        let texts = words.texts.into_iter().map(str::to_owned).collect();
        Self::of(program, texts)
    }

    /// The same, whatever it consists of: for tests of what happens where that is too much.
    #[cfg(test)]
    pub(super) fn unchecked(source: &str) -> Result<Self, String> {
        Self::of(compile(source)?, BTreeSet::new())
    }

    fn of(program: Program, texts: BTreeSet<String>) -> Result<Self, String> {
        let mut context = Context::default();
        context.register_all();
        let (quantity, version) = (compile("quantity(text)")?, compile("semver(text)")?);
        Ok(Self { program, texts, context, quantity, version })
    }

    pub(super) fn one(&self, driver: &str, device: &v1::Device) -> Verdict {
        self.evaluate(driver, device).map_err(Undecided::Failed)
    }

    fn evaluate(&self, driver: &str, device: &v1::Device) -> Result<bool, String> {
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

fn compile(source: &str) -> Result<Program, String> {
    Program::compile(source).map_err(|errors| errors.to_string().replace('\n', " "))
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
