use std::fmt;
use std::num::NonZeroU32;

use gateway_core::{Dispatcher, Health, Load, ModelState, Runner};
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::{Sample, gauges};

const HEALTHS: [Health; 5] =
    [Health::Healthy, Health::Degraded, Health::Starting, Health::ShuttingDown, Health::Unhealthy];

/// Reads the fleet at the moment of the scrape: nothing to count meanwhile, nothing to remove when a runner
/// leaves.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, dispatcher: &Dispatcher) -> fmt::Result {
    let mut under_way = encoder.encode_descriptor(
        "gateway_requests_in_flight",
        "Requests for inference that wait for an answer or are being answered",
        None,
        prometheus_client::metrics::MetricType::Gauge,
    )?;
    under_way.encode_gauge(&(dispatcher.in_flight() as u64))?;

    let fleet = dispatcher.registry().fleet();
    let now = tokio::time::Instant::now();
    let loads: Vec<(&Runner, Load)> =
        fleet.runners().iter().map(|runner| (&**runner, runner.load_at(now))).collect();
    // What is not known is left out: it is not zero.
    let by_runner = |value: fn(&Load) -> Option<u32>| {
        let known = loads.iter().filter_map(move |(runner, load)| Some((*runner, value(load)?)));
        known.map(|(runner, value)| -> Sample<'_, 1> { ([("runner", runner.id().as_str())], value.into()) })
    };
    gauges(
        encoder,
        "gateway_runner_in_flight",
        "Requests of this gateway on the runner",
        by_runner(|load| Some(load.in_flight)),
    )?;
    gauges(
        encoder,
        "gateway_runner_slots",
        "The most requests that the runner takes at once, if known",
        by_runner(|load| load.slots.map(NonZeroU32::get)),
    )?;
    gauges(
        encoder,
        "gateway_runner_foreign_requests",
        "Requests of others on the runner, those that wait inside its engine included, as it last reported",
        by_runner(|load| load.foreign),
    )?;
    let mut states = ModelState::WORDS.map(|state| -> Sample<'_, 1> { ([("state", state)], 0) });
    for model in loads.iter().flat_map(|(runner, _)| &runner.status().models) {
        let state = states.iter_mut().find(|(labels, _)| labels[0].1 == model.state.as_str());
        if let Some((_, count)) = state {
            *count += 1;
        }
    }
    let help = "Models by the state that they are in on a runner; one that several have counts for each";
    gauges(encoder, "gateway_models", help, states)?;
    let healths = loads.iter().flat_map(|(runner, _)| {
        HEALTHS.iter().map(|health| -> Sample<'_, 2> {
            let labels = [("runner", runner.id().as_str()), ("health", health.as_str())];
            (labels, u64::from(runner.status().health == *health))
        })
    });
    gauges(encoder, "gateway_runner_health", "1 at the health that the runner says it has", healths)?;
    let standings = loads.iter().map(|(runner, _)| -> Sample<'_, 2> {
        let standing = dispatcher.standing(runner).as_str();
        ([("runner", runner.id().as_str()), ("standing", standing)], 1)
    });
    let help = "1 at what matters most of what the runner's conduct has earned it: good, open, half_open, \
                unreachable, asked_to_wait, ejected, warming";
    gauges(encoder, "gateway_runner_standing", help, standings)
}
