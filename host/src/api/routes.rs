//! The table of routes and the right that each needs. A path that is not in it does not exist.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::access::Right::{Administer, Analyze, Operate, View};
use super::config::{self, ConfigControl};
use super::control::Control;
use super::deployments::DeploymentControl;
use super::gate::Need::{AtOwner, Caller, May, Nothing, OfAll, OfSession};
use super::gate::{Gate, Need, RouteGuard, pass};
use super::insight::{self, InsightControl};
use super::state::ApiState;
use super::{
    analyze, ask, audit, backup, client_address, clips, deployments, discover, documents, events,
    jobs, login, origin, pictures, probe, request_id, rest, site, socket, stream, tokens, ui,
};

/// A row of the table.
pub(super) struct Route {
    /// The action's name in the log.
    pub(super) action: &'static str,
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) need: Need,
}

/// Makes the table, a plain value, and the handlers in its order, which are generic.
macro_rules! routes {
    (|$pictures:ident| $($action:literal, $method:ident, $path:literal, $need:expr, $handler:expr;)+) => {
        /// A path may have several rows. `GET` is `HEAD` too.
        pub(super) static ROUTES: &[Route] =
            &[$(Route { action: $action, method: Method::$method, path: $path, need: $need }),+];

        fn handlers<C: Control + DeploymentControl + InsightControl + ConfigControl>(
            $pictures: DefaultBodyLimit,
        ) -> Vec<(&'static Route, MethodRouter<Arc<ApiState<C>>>)> {
            let handlers = [$(answer(&Method::$method, $handler)),+];
            ROUTES.iter().zip(handlers).collect()
        }
    };
}

routes! { |uploaded|
    "health", GET, "/healthz", Nothing, rest::health;
    "ready", GET, "/readyz", Nothing, rest::ready;
    "metrics", GET, "/metrics", OfAll(View), rest::metrics;
    "openapi", GET, "/openapi.json", Caller, documents::openapi;
    "asyncapi", GET, "/asyncapi.json", Caller, documents::asyncapi;
    "login", POST, "/v1/login", Nothing, login::log_in;
    "logout", POST, "/v1/logout", Caller, login::log_out;
    "me", GET, "/v1/me", Caller, login::me;
    "audit", GET, "/v1/audit", May(Administer), audit::list;
    "list_tokens", GET, "/v1/tokens", May(Administer), tokens::list;
    "make_token", POST, "/v1/tokens", May(Administer), tokens::make;
    "revoke_token", DELETE, "/v1/tokens/{name}", May(Administer), tokens::revoke;
    "config", GET, "/v1/config", May(Operate), deployments::config;
    "reload_config", POST, "/v1/config/reload", May(Operate), config::reload;
    "camera_config", GET, "/v1/config/cameras/{id}", May(Operate), config::camera;
    "edit_camera", PUT, "/v1/config/cameras/{id}", May(Administer), config::put_camera;
    "remove_camera", DELETE, "/v1/config/cameras/{id}", May(Administer), config::delete_camera;
    "backup", POST, "/v1/backup", May(Administer), backup::make;
    "cluster", GET, "/v1/cluster", May(Operate), site::show;
    "drain_host", POST, "/v1/cluster/hosts/{id}/drain", May(Administer), site::drain;
    "move_camera", POST, "/v1/cluster/cameras/{id}/move", May(Administer), site::move_camera;
    "list_site_tokens", GET, "/v1/cluster/tokens", May(Administer), site::tokens::list;
    "make_site_token", POST, "/v1/cluster/tokens", May(Administer), site::tokens::make;
    "revoke_site_token", DELETE, "/v1/cluster/tokens/{name}", May(Administer), site::tokens::revoke;
    "list_rollouts", GET, "/v1/cluster/rollouts", May(Operate), site::rollouts::list;
    "begin_rollout", POST, "/v1/cluster/rollouts", May(Operate), site::rollouts::create;
    "rollout", GET, "/v1/cluster/rollouts/{id}", May(Operate), site::rollouts::show;
    "stop_rollout", POST, "/v1/cluster/rollouts/{id}/stop", May(Operate), site::rollouts::stop;
    "system", GET, "/v1/system", May(Operate), insight::system;
    "list_sessions", GET, "/v1/sessions", May(View), site::sessions;
    "session", GET, "/v1/sessions/{id}", AtOwner(View), rest::session;
    "stats", GET, "/v1/sessions/{id}/stats", AtOwner(View), insight::stats;
    "log", GET, "/v1/sessions/{id}/log", AtOwner(Operate), insight::log;
    "stop", DELETE, "/v1/sessions/{id}", AtOwner(Operate), rest::stop;
    "restart", POST, "/v1/sessions/{id}/restart", AtOwner(Operate), rest::restart;
    "query", POST, "/v1/sessions/{id}/query", AtOwner(View), ask::query;
    "command", POST, "/v1/sessions/{id}/command", AtOwner(Operate), ask::command;
    "deploy", PUT, "/v1/sessions/{id}/pipeline", AtOwner(Operate), deployments::deploy;
    "rollback", POST, "/v1/sessions/{id}/rollback", AtOwner(Operate), deployments::rollback;
    "list_deployments", GET, "/v1/sessions/{id}/deployments", AtOwner(View), deployments::list;
    "settings", GET, "/v1/sessions/{id}/settings", AtOwner(View), deployments::settings;
    "events", GET, "/v1/sessions/{id}/events", OfSession(View), events::list;
    "search_events", GET, "/v1/events", May(View), events::search;
    "stream", GET, "/v1/sessions/{id}/stream", OfSession(View), stream::open;
    "stream_all", GET, "/v1/stream", May(View), stream::all::open;
    "clip", GET, "/v1/events/{id}/clip.mp4", May(View), clips::clip;
    "frame", GET, "/v1/sessions/{id}/frame.jpg", AtOwner(View), pictures::frame;
    "mjpeg", GET, "/v1/sessions/{id}/mjpeg", AtOwner(View), pictures::mjpeg;
    "attachment", GET, "/v1/attachments/{digest}", May(View), events::attachment;
    "probe", POST, "/v1/probe", May(Operate), probe::probe;
    "discover", POST, "/v1/discover", May(Operate), discover::discover;
    "list_pipelines", GET, "/v1/pipelines", May(View), deployments::pipelines;
    "pipeline_schema", GET, "/v1/pipelines/{name}/schema", May(Operate), deployments::schema;
    "put_pipeline", PUT, "/v1/pipelines/{name}", May(Administer), deployments::put_pipeline;
    "list_models", GET, "/v1/models", May(View), rest::models;
    "analyze", POST, "/v1/analyze/{pipeline}", May(Analyze), analyze::analyze.layer(uploaded);
    "list_jobs", GET, "/v1/jobs", May(Analyze), jobs::list;
    "job", GET, "/v1/jobs/{id}", May(Analyze), jobs::show;
    "cancel_job", DELETE, "/v1/jobs/{id}", May(Analyze), jobs::cancel;
    "websocket", GET, "/v1/ws", May(View), socket::open;
}

fn answer<S, H, T>(method: &Method, handler: H) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    H: Handler<T, S>,
    T: 'static,
{
    // Without a filter a method would match no request.
    on(MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE), handler)
}

/// The router with all routes.
pub(super) fn router<C: Control + DeploymentControl + InsightControl + ConfigControl>(
    state: ApiState<C>,
    gate: &Arc<Gate>,
) -> Router {
    let pictures = DefaultBodyLimit::max(analyze::longest_body(state.control.analyses().limits()));
    let post = |action, need| RouteGuard { gate: Arc::clone(gate), action, need };
    let state = Arc::new(state);
    let mut router = Router::new();
    for (Route { action, path, need, .. }, mut handler) in handlers::<C>(pictures) {
        if let AtOwner(_) = need {
            let owner = from_fn_with_state(Arc::clone(&state), site::to_owner::<C>);
            handler = handler.route_layer(owner);
        }
        router =
            router.route(path, handler.route_layer(from_fn_with_state(post(action, *need), pass)));
    }
    let nowhere = from_fn_with_state(post("nothing", Caller), pass);
    router
        .merge(ui::routes(gate.base.clone()))
        .fallback(rest::no_such_path.layer(nowhere.clone()))
        .method_not_allowed_fallback(rest::no_such_method.layer(nowhere))
        .layer(from_fn_with_state(Arc::clone(gate), origin::check))
        .layer(from_fn(request_id::identify))
        .layer(from_fn_with_state(Arc::clone(gate), client_address::find))
        .with_state(state)
}
