//! Providers and routes as one immutable set, swapped whole on reload (GW-41); a call keeps the set that it began with.

mod listing;
#[cfg(test)]
mod tests;

pub use listing::{ModelInfo, ModelPage, PageError, PageQuery};

use crate::pricing::Catalog;
use crate::providers::{Provider, ProviderConfigError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use systemprompt_config::profile::gateway::{GatewayConfig, GatewayTimeouts, RouteConfig};
use systemprompt_config::secrets::Secrets;

/// A configuration that cannot be used; the one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("gateway.providers: `{0}` is given twice")]
    DuplicateProvider(Box<str>),
    #[error("gateway.providers: `{name}`: {cause}")]
    Provider {
        name: Box<str>,
        #[source]
        cause: ProviderConfigError,
    },
    #[error("gateway.routes: `{0}` is given twice")]
    DuplicateRoute(Box<str>),
    #[error("gateway.routes: `{route}` names the provider `{provider}`, which does not exist")]
    UnknownProvider { route: Box<str>, provider: Box<str> },
    #[error("gateway.routes: `{route}` has {given} targets; it needs exactly one")]
    NotOneTarget { route: Box<str>, given: usize },
    #[error("gateway.default_route: there is no route `{0}`")]
    UnknownDefaultRoute(Box<str>),
}

/// Bounds in time of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub first_byte: Duration,
    pub stream_first_byte: Duration,
    pub stream_idle: Duration,
    pub total: Duration,
}

impl From<&GatewayTimeouts> for Timeouts {
    fn from(config: &GatewayTimeouts) -> Self {
        let ms = |n: u32| Duration::from_millis(n.into());
        Self {
            first_byte: ms(config.first_byte_ms),
            stream_first_byte: ms(config.stream_first_byte_ms),
            stream_idle: ms(config.stream_idle_ms),
            total: ms(config.total_ms),
        }
    }
}

/// A provider and the model to ask it for.
#[derive(Clone, Debug)]
pub struct Target {
    pub provider: Arc<Provider>,
    pub upstream_model: Option<Arc<str>>,
    pub timeouts: Timeouts,
}

/// A named rule that maps requested models to a target.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    config: RouteConfig,
    pub target: Target,
}

impl Route {
    pub fn fits(&self, model: &str) -> bool {
        self.config.fits(model)
    }

    /// Whether the route is for one model, which the configuration names.
    pub fn is_exact(&self) -> bool {
        self.config.is_exact()
    }
}

/// All providers and routes of one configuration.
#[derive(Debug)]
pub struct Registry {
    pub enabled: bool,
    /// Model calls that the node carries at once.
    pub max_streams: usize,
    routes: Vec<Arc<Route>>,
    default_route: Option<Arc<Route>>,
    listing: Vec<listing::Listed>,
}

impl Registry {
    /// # Errors
    /// What [`RegistryError`] lists, all of it before anything changes.
    pub fn build(
        config: &GatewayConfig,
        secrets: &Secrets,
        catalog: &Catalog,
    ) -> Result<Self, RegistryError> {
        let mut providers = HashMap::new();
        for provider in &config.providers {
            let name: Box<str> = provider.name.as_str().into();
            let built = Provider::build(provider, secrets)
                .map_err(|cause| RegistryError::Provider { name: name.clone(), cause })?;
            if providers.insert(provider.name.as_str(), (Arc::new(built), provider)).is_some() {
                return Err(RegistryError::DuplicateProvider(name));
            }
        }
        let mut routes: Vec<Arc<Route>> = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let name = || Box::from(route.name.as_str());
            if routes.iter().any(|other| *other.name == *route.name) {
                return Err(RegistryError::DuplicateRoute(name()));
            }
            // A second target would never be used, which whoever wrote it does not expect.
            let [target] = route.targets.as_slice() else {
                return Err(RegistryError::NotOneTarget { route: name(), given: route.targets.len() });
            };
            let (provider, of) = providers.get(target.provider.as_str()).ok_or_else(|| {
                RegistryError::UnknownProvider { route: name(), provider: target.provider.as_str().into() }
            })?;
            let timeouts = config.timeouts.with(&of.timeouts).with(&route.timeouts);
            let target = Target {
                provider: Arc::clone(provider),
                upstream_model: target.upstream_model.as_deref().map(Arc::from),
                timeouts: Timeouts::from(&timeouts),
            };
            routes.push(Arc::new(Route { name: route.name.as_str().into(), config: route.clone(), target }));
        }
        let default_route = match &config.default_route {
            None => None,
            Some(name) => Some(
                routes
                    .iter()
                    .find(|route| *route.name == **name)
                    .cloned()
                    .ok_or_else(|| RegistryError::UnknownDefaultRoute(name.as_str().into()))?,
            ),
        };
        let listing = listing::list(&routes, catalog);
        Ok(Self {
            enabled: config.enabled,
            max_streams: config.max_streams as usize,
            routes,
            default_route: default_route.filter(|_| config.allow_unlisted_models),
            listing,
        })
    }

    /// The route of a model: the first whose pattern fits, else the default route where unlisted models may pass.
    pub fn route_for(&self, model: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.fits(model)).or(self.default_route.as_ref())
    }

    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Providers whose secret is missing, with its name: calls to them are refused.
    pub fn missing_secrets(&self) -> Vec<(Arc<str>, Box<str>)> {
        let mut missing: Vec<(Arc<str>, Box<str>)> = Vec::new();
        for provider in self.routes.iter().map(|route| &route.target.provider) {
            if let Some(secret) = provider.missing_secret()
                && !missing.iter().any(|(name, _)| *name == provider.name)
            {
                missing.push((Arc::clone(&provider.name), secret.into()));
            }
        }
        missing
    }
}
