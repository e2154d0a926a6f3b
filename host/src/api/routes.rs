//! Everything that can be asked, and what each needs. What is not in the table cannot be reached.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::access::Right::{Administer, Analyze, Operate, View};
use super::gate::Need::{Caller, May, Nothing, OfAll, OfSession};
use super::gate::{Gate, Need, Post, pass};
use super::{
    Control, Deployments, State, analyze, deployments, documents, events, jobs, models, origin, rest, socket,
    stream,
};

/// A row of the table.
struct Route<C> {
    /// What the log calls it.
    action: &'static str,
    method: Method,
    path: &'static str,
    need: Need,
    answer: MethodRouter<Arc<State<C>>>,
}

/// A path may stand here for several methods. `GET` is `HEAD` too.
#[rustfmt::skip]
fn table<C: Control + Deployments>(pictures: DefaultBodyLimit) -> Vec<Route<C>> {
    let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
    vec![
        row("health", &get, "/healthz", Nothing, rest::health),
        row("ready", &get, "/readyz", Nothing, rest::ready),
        row("metrics", &get, "/metrics", OfAll(View), rest::metrics),
        row("openapi", &get, "/openapi.json", Caller, documents::openapi),
        row("asyncapi", &get, "/asyncapi.json", Caller, documents::asyncapi),
        row("list_sessions", &get, "/v1/sessions", May(View), rest::sessions),
        row("session", &get, "/v1/sessions/{id}", OfSession(View), rest::session),
        row("stop", &delete, "/v1/sessions/{id}", OfSession(Operate), rest::stop),
        row("restart", &post, "/v1/sessions/{id}/restart", OfSession(Operate), rest::restart),
        row("deploy", &put, "/v1/sessions/{id}/pipeline", OfSession(Operate), deployments::deploy),
        row("rollback", &post, "/v1/sessions/{id}/rollback", OfSession(Operate), deployments::rollback),
        row("list_deployments", &get, "/v1/sessions/{id}/deployments", OfSession(View), deployments::list),
        row("events", &get, "/v1/sessions/{id}/events", OfSession(View), events::list),
        row("stream", &get, "/v1/sessions/{id}/stream", OfSession(View), stream::open),
        row("attachment", &get, "/v1/attachments/{digest}", May(View), events::attachment),
        row("list_pipelines", &get, "/v1/pipelines", May(View), deployments::pipelines),
        row("put_pipeline", &put, "/v1/pipelines/{name}", May(Administer), deployments::keep),
        row("list_models", &get, "/v1/models", May(View), models::list),
        row("analyze", &post, "/v1/analyze/{pipeline}", May(Analyze), analyze::analyze.layer(pictures)),
        row("list_jobs", &get, "/v1/jobs", May(Analyze), jobs::list),
        row("job", &get, "/v1/jobs/{id}", May(Analyze), jobs::show),
        row("cancel_job", &delete, "/v1/jobs/{id}", May(Analyze), jobs::cancel),
        row("websocket", &get, "/v1/ws", May(View), socket::open),
    ]
}

fn row<C, H, T>(action: &'static str, method: &Method, path: &'static str, need: Need, handler: H) -> Route<C>
where
    C: Control,
    H: Handler<T, Arc<State<C>>>,
    T: 'static,
{
    // A method that has no filter would answer to none.
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
    Route { action, method: method.clone(), path, need, answer: on(filter, handler) }
}

/// The router, and what it has routes for.
pub(super) fn router<C: Control + Deployments>(
    state: State<C>,
    gate: &Arc<Gate>,
) -> (Router, Vec<(Method, &'static str)>) {
    let pictures = DefaultBodyLimit::max(analyze::longest_body(state.control.analyses().bounds()));
    let post = |action, need| Post { gate: Arc::clone(gate), action, need };
    let (mut router, mut routes) = (Router::new(), Vec::new());
    for Route { action, method, path, need, answer } in table::<C>(pictures) {
        router = router.route(path, answer.route_layer(from_fn_with_state(post(action, need), pass)));
        routes.push((method, path));
    }
    let nowhere = from_fn_with_state(post("nothing", Caller), pass);
    let router = router
        .fallback(rest::no_such_path.layer(nowhere.clone()))
        .method_not_allowed_fallback(rest::no_such_method.layer(nowhere))
        .layer(from_fn_with_state(Arc::clone(gate), origin::check))
        .with_state(Arc::new(state));
    (router, routes)
}
