//! Which generic route a request means.

use std::sync::Arc;

use gateway_core::{Deadlines, Requirements};
use http::Method;

use super::paths::Paths as Tree;
use super::route::{GenericRoute, InvalidRoute, Paths, Times};
use crate::needs::Need;
use crate::openapi::{OpenApi, Operation, Template};

/// All generic routes of a gateway.
#[derive(Default)]
pub(crate) struct GenericTable {
    tree: Tree,
    /// In the places that the tree gives.
    paths: Vec<Path>,
    /// The longest first, each without a slash at its end.
    prefixes: Vec<(String, Arc<Target>)>,
}

/// What is known of one path.
struct Path {
    methods: Vec<(Method, Arc<Target>)>,
    allow: String,
}

/// What is to become of a request. Made once, when the gateway is built.
#[derive(Debug)]
pub(crate) struct Target {
    pub(super) requirements: Requirements,
    pub(super) upgrades: bool,
    pub(super) pass_credentials: bool,
    pub(super) kept_body_bytes: u64,
    pub(super) max_body_bytes: Option<u64>,
    /// `None`: as the method says.
    pub(super) repeatable: Option<bool>,
    pub(super) deadlines: Deadlines,
}

pub(crate) enum Found<'t> {
    Target(&'t Arc<Target>),
    /// The path is there, but takes these methods only.
    WrongMethod(&'t str),
}

impl GenericTable {
    /// The table of these routes; `None` if there are none.
    pub(crate) fn new(routes: Vec<GenericRoute>, usual: Deadlines) -> Result<Option<Self>, InvalidRoute> {
        if routes.is_empty() {
            return Ok(None);
        }
        let mut table = Self::default();
        for route in routes {
            table.add(&route, usual)?;
        }
        table.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        for path in &mut table.paths {
            path.finish();
        }
        Ok(Some(table))
    }

    fn add(&mut self, route: &GenericRoute, usual: Deadlines) -> Result<(), InvalidRoute> {
        let sound = |need: &Need, whose: &str| {
            if need.is_sound() { Ok(()) } else { Err(InvalidRoute::Need { whose: whose.to_owned() }) }
        };
        sound(&route.need, "a generic route")?;
        for (path, need) in &route.needs_of {
            sound(need, path)?;
            let is_known = match &route.paths {
                Paths::Document(document) => document.operations().iter().any(|one| one.path == *path),
                Paths::Prefix(_) => false,
            };
            if !is_known {
                return Err(InvalidRoute::NoSuchPath { path: path.clone() });
            }
        }
        match &route.paths {
            Paths::Prefix(prefix) => self.add_prefix(prefix, Target::of_prefix(route, usual)),
            Paths::Document(document) => self.add_document(document, route, usual),
        }
    }

    fn add_prefix(&mut self, prefix: &str, target: Target) -> Result<(), InvalidRoute> {
        let wrong =
            |problem: &str| InvalidRoute::Path { path: prefix.to_owned(), problem: problem.to_owned() };
        if !prefix.starts_with('/') {
            return Err(wrong("a prefix must begin with `/`"));
        }
        if prefix.contains(['{', '}', '?', '#', '*']) {
            return Err(wrong("a prefix is plain text: whatever is below it is served"));
        }
        let bare = prefix.trim_end_matches('/');
        if self.prefixes.iter().any(|(other, _)| other == bare) {
            return Err(InvalidRoute::Twice { method: "any method".to_owned(), path: prefix.to_owned() });
        }
        self.prefixes.push((bare.to_owned(), Arc::new(target)));
        Ok(())
    }

    fn add_document(
        &mut self,
        document: &OpenApi,
        route: &GenericRoute,
        usual: Deadlines,
    ) -> Result<(), InvalidRoute> {
        for operation in document.operations() {
            let target = Arc::new(Target::of_operation(operation, document, route, usual));
            for base in document.base_paths() {
                let path = format!("{base}{}", operation.path);
                let at = self.place(&path)?;
                let methods = &mut self.paths[at].methods;
                if methods.iter().any(|(method, _)| *method == operation.method) {
                    return Err(InvalidRoute::Twice { method: operation.method.to_string(), path });
                }
                methods.push((operation.method.clone(), target.clone()));
            }
        }
        Ok(())
    }

    /// Where a path is among all, be it new.
    fn place(&mut self, path: &str) -> Result<usize, InvalidRoute> {
        let wrong = |problem: String| InvalidRoute::Path { path: path.to_owned(), problem };
        let template = Template::parse(path).map_err(|why| wrong(why.to_string()))?;
        let at = self.tree.place(template, self.paths.len());
        if at == self.paths.len() {
            self.paths.push(Path { methods: Vec::new(), allow: String::new() });
        }
        Ok(at)
    }

    /// What a request means, if anything.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<Found<'_>> {
        // A runner that resolves such a path would serve what is not below the prefix or of the template.
        if *method == Method::CONNECT || has_dots(path) {
            return None;
        }
        if let Some(place) = self.tree.find(path) {
            let path = self.paths.get(place)?;
            return Some(match path.methods.iter().find(|(one, _)| one == method) {
                Some((_, target)) => Found::Target(target),
                None => Found::WrongMethod(&path.allow),
            });
        }
        let below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.prefixes.iter().find(|(prefix, _)| below(prefix)).map(|(_, target)| Found::Target(target))
    }
}

/// Whether a segment is `.` or `..`, in whatever writing.
fn has_dots(path: &str) -> bool {
    let dot = |segment: &str| -> bool {
        let mut rest = segment;
        let mut dots = 0;
        while !rest.is_empty() {
            let is_encoded = rest.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2e"));
            match rest.strip_prefix('.').or(if is_encoded { rest.get(3..) } else { None }) {
                Some(more) => rest = more,
                None => return false,
            }
            dots += 1;
        }
        dots == 1 || dots == 2
    };
    path.split('/').any(dot)
}

impl Path {
    fn finish(&mut self) {
        let of = |wanted: Method| self.methods.iter().find(|(one, _)| *one == wanted);
        if let (Some((_, get)), None) = (of(Method::GET), of(Method::HEAD)) {
            let get = get.clone();
            self.methods.push((Method::HEAD, get));
        }
        self.allow = self.methods.iter().map(|(method, _)| method.as_str()).collect::<Vec<_>>().join(", ");
    }
}

impl Target {
    fn of_prefix(route: &GenericRoute, usual: Deadlines) -> Self {
        let requirements = Requirements {
            model: route.model.clone(),
            labels: route.labels.clone(),
            resources: route.need.over(None),
            ..Requirements::default()
        };
        Self {
            requirements,
            upgrades: route.upgrades,
            pass_credentials: route.pass_credentials,
            kept_body_bytes: route.kept_body_bytes,
            max_body_bytes: route.max_body_bytes,
            repeatable: None,
            deadlines: route.times.over(usual),
        }
    }

    fn of_operation(
        operation: &Operation,
        document: &OpenApi,
        route: &GenericRoute,
        usual: Deadlines,
    ) -> Self {
        let mut target = Self::of_prefix(route, usual);
        let requirements = &mut target.requirements;
        requirements.resources = operation.resources.or(route.need.over(document.unannotated()));
        for (path, need) in &route.needs_of {
            if *path == operation.path {
                requirements.resources = need.over(requirements.resources);
            }
        }
        requirements.labels.extend(operation.labels.clone());
        if operation.model.is_some() {
            requirements.model.clone_from(&operation.model);
        }
        target.upgrades = operation.upgrade.unwrap_or(target.upgrades);
        target.max_body_bytes = operation.max_body_bytes.or(target.max_body_bytes);
        target.repeatable = operation.repeatable;
        target.deadlines.total = operation.timeout.or(target.deadlines.total);
        target
    }
}

impl Times {
    fn over(self, usual: Deadlines) -> Deadlines {
        Deadlines {
            first_byte: self.first_byte.or(usual.first_byte),
            idle: self.idle.or(usual.idle),
            total: self.total.or(usual.total),
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
