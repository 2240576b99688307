//! The list of models (GW-25): what the catalog and the routes know, in the order of the routes, without a call upstream.

use super::{Registry, Route};
use crate::pricing::Catalog;
use serde::Serialize;
use std::sync::Arc;

/// Largest and usual size of a page.
const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 20;
/// Date of a model that the catalog does not know.
const UNKNOWN_DATE: &str = "1970-01-01T00:00:00Z";

/// A model as the Anthropic wire lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelInfo {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: Arc<str>,
    pub display_name: Arc<str>,
    /// RFC 3339.
    pub created_at: Arc<str>,
}

/// A page of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelPage {
    pub data: Vec<ModelInfo>,
    pub has_more: bool,
    pub first_id: Option<Arc<str>>,
    pub last_id: Option<Arc<str>>,
}

/// Which page is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// 1 to 1000; 20 if absent.
    pub limit: Option<u32>,
    pub after_id: Option<String>,
    pub before_id: Option<String>,
}

/// A page that cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("limit: must be between 1 and {MAX_LIMIT}")]
    Limit,
    #[error("after_id, before_id: only one of them can be given")]
    Both,
    #[error("after_id, before_id: no such model in the list")]
    Unknown,
}

#[derive(Debug)]
pub(super) struct Listed {
    info: ModelInfo,
    route: Arc<Route>,
}

/// Every id that leads to a route: exact patterns, and the catalog's models of the provider behind a wider pattern. The route
/// is the one that a call with this id takes.
pub(super) fn list(routes: &[Arc<Route>], catalog: &Catalog) -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    let mut push = |id: &str, route: &Arc<Route>| {
        let first = routes.iter().find(|other| other.fits(id));
        if listed.iter().any(|other| *other.info.id == *id) || !first.is_some_and(|r| Arc::ptr_eq(r, route)) {
            return;
        }
        let known = catalog.get(id);
        let info = ModelInfo {
            kind: "model",
            id: id.into(),
            display_name: known.map_or(id, |model| &model.display_name).into(),
            created_at: known.map_or(UNKNOWN_DATE, |model| &model.created_at).into(),
        };
        listed.push(Listed { info, route: Arc::clone(route) });
    };
    for route in routes {
        if route.is_exact() {
            push(&route.config.model, route);
            continue;
        }
        let kind = route.target.provider.kind();
        let served = catalog.models().iter().filter(|model| &*model.provider == kind);
        for name in served.flat_map(|model| std::iter::once(&model.id).chain(&model.aliases)) {
            if route.fits(name) {
                push(name, route);
            }
        }
    }
    listed
}

impl Registry {
    /// The model with this id, if a call with it takes a route that `may_use` allows.
    pub fn model(&self, id: &str, may_use: impl Fn(&Route) -> bool) -> Option<&ModelInfo> {
        let listed = self.listing.iter().find(|listed| *listed.info.id == *id)?;
        may_use(&listed.route).then_some(&listed.info)
    }

    /// A page of the models whose route `may_use` allows.
    ///
    /// # Errors
    /// A limit out of range, both ids, or one that is not in the list.
    pub fn models(
        &self,
        query: &PageQuery,
        may_use: impl Fn(&Route) -> bool,
    ) -> Result<ModelPage, PageError> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(PageError::Limit);
        }
        let limit = limit as usize;
        let allowed: Vec<(&Arc<Route>, bool)> =
            self.routes.iter().map(|route| (route, may_use(route))).collect();
        let usable = |listed: &&Listed| {
            allowed.iter().any(|(route, allowed)| *allowed && Arc::ptr_eq(route, &listed.route))
        };
        let all: Vec<&ModelInfo> = self.listing.iter().filter(usable).map(|listed| &listed.info).collect();
        let place = |id: &str| all.iter().position(|info| *info.id == *id).ok_or(PageError::Unknown);
        let (from, to) = match (&query.after_id, &query.before_id) {
            (Some(_), Some(_)) => return Err(PageError::Both),
            (Some(id), None) => (place(id)? + 1, all.len()),
            (None, Some(id)) => {
                let end = place(id)?;
                (end.saturating_sub(limit), end)
            }
            (None, None) => (0, all.len()),
        };
        let data: Vec<ModelInfo> =
            all.get(from..to).unwrap_or_default().iter().take(limit).map(|info| (*info).clone()).collect();
        let has_more = if query.before_id.is_some() { from > 0 } else { from + data.len() < all.len() };
        let id_of = |info: Option<&ModelInfo>| info.map(|info| Arc::clone(&info.id));
        Ok(ModelPage { has_more, first_id: id_of(data.first()), last_id: id_of(data.last()), data })
    }
}
