//! Which route answers a method and path. The edge asks it before the router does: who is limited, judged or refused depends on
//! the route.

use super::route::RouteSpec;
use http::Method;

/// Why a list of routes is none.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error("two routes answer {0} {1}")]
    Duplicate(Method, &'static str),
    #[error("the route {path} does not fit the others")]
    Conflict { path: &'static str, source: matchit::InsertError },
}

#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<RouteSpec>,
    by_path: matchit::Router<Vec<(Method, usize)>>,
}

impl RouteTable {
    /// # Errors
    /// Two routes with one method and path, or paths that exclude each other.
    pub fn new(routes: Vec<RouteSpec>) -> Result<Self, RouteError> {
        let mut paths: Vec<(&'static str, Vec<(Method, usize)>)> = Vec::new();
        for (index, RouteSpec { path, method, .. }) in routes.iter().enumerate() {
            match paths.iter_mut().find(|(known, _)| known == path) {
                Some((_, methods)) if methods.iter().any(|(m, _)| m == method) => {
                    return Err(RouteError::Duplicate(method.clone(), path));
                }
                Some((_, methods)) => methods.push((method.clone(), index)),
                None => paths.push((path, vec![(method.clone(), index)])),
            }
        }
        let mut by_path = matchit::Router::new();
        for (path, methods) in paths {
            by_path.insert(path, methods).map_err(|source| RouteError::Conflict { path, source })?;
        }
        Ok(Self { routes, by_path })
    }

    /// The path of each route, in their order.
    pub fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.routes.iter().map(|route| route.path)
    }

    /// The route of a method and path. HEAD is answered by GET where it has no route of its own.
    pub fn find(&self, method: &Method, path: &str) -> Option<&RouteSpec> {
        let methods = self.methods(path)?;
        let of = |wanted: &Method| methods.iter().find(|(m, _)| m == wanted);
        let fallback = || (*method == Method::HEAD).then(|| of(&Method::GET)).flatten();
        of(method).or_else(fallback).and_then(|(_, index)| self.routes.get(*index))
    }

    /// The methods of a path that is registered, with or without a slash at its end.
    pub fn methods(&self, path: &str) -> Option<&Vec<(Method, usize)>> {
        let bare = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        self.by_path.at(if bare.is_empty() { "/" } else { bare }).ok().map(|found| found.value)
    }
}
