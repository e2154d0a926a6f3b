//! Families of metrics as OpenMetrics has them: a name with its unit, a type and a help, and then
//! all samples.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::session::latency::Histogram;

/// The units that a name may end with.
static UNITS: [Unit; 2] = [Unit::Seconds, Unit::Bytes];

/// Writes one family after the other.
pub(super) struct Families<'a, 'b>(pub(super) &'a mut DescriptorEncoder<'b>);

/// A family whose head is written.
pub(super) struct Family<'a> {
    encoder: MetricEncoder<'a>,
    counts: bool,
}

type Head<'a> = Result<Family<'a>, fmt::Error>;

/// The value of a sample.
pub(super) trait Number: EncodeCounterValue + EncodeGaugeValue {}

impl<T: EncodeCounterValue + EncodeGaugeValue> Number for T {}

impl Families<'_, '_> {
    /// A family whose value only grows. `name` leaves out the `_total` of its samples.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Head<'_> {
        self.family(name, help, MetricType::Counter)
    }

    /// A family whose value goes up and down.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Head<'_> {
        self.family(name, help, MetricType::Gauge)
    }

    /// A family that says what it says by its labels. `name` leaves out the `_info` of its samples.
    pub(super) fn info<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl IntoIterator<Item = L>,
    ) -> fmt::Result {
        let mut encoder = self.family(name, help, MetricType::Info)?.encoder;
        samples.into_iter().try_for_each(|labels| encoder.encode_info(&labels.as_ref()))
    }

    /// A family of histograms.
    pub(super) fn histograms<'l>(
        &mut self,
        name: &'static str,
        help: &str,
        samples: impl Iterator<Item = ([(&'l str, &'l str); 2], &'l Histogram)>,
    ) -> fmt::Result {
        let mut encoder = self.family(name, help, MetricType::Histogram)?.encoder;
        for (labels, histogram) in samples {
            let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                histogram.sum(),
                histogram.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn family(&mut self, name: &'static str, help: &str, kind: MetricType) -> Head<'_> {
        // The encoder adds the unit to the name by itself.
        let unit = UNITS.iter().find_map(|unit| {
            Some((name.strip_suffix(unit.as_str())?.strip_suffix('_')?, Some(unit)))
        });
        let (name, unit) = unit.unwrap_or((name, None));
        let encoder = self.0.encode_descriptor(name, help, unit, kind)?;
        Ok(Family { encoder, counts: matches!(kind, MetricType::Counter) })
    }
}

impl Family<'_> {
    /// The only sample, without labels.
    pub(super) fn value(mut self, value: impl Number) -> fmt::Result {
        self.sample(&[], &value)
    }

    /// A sample for each set of labels, given with their values.
    pub(super) fn samples<'l, L: AsRef<[(&'l str, &'l str)]>>(
        mut self,
        samples: impl IntoIterator<Item = (L, impl Number)>,
    ) -> fmt::Result {
        samples.into_iter().try_for_each(|(labels, value)| self.sample(labels.as_ref(), &value))
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: &impl Number) -> fmt::Result {
        if labels.is_empty() {
            return encode(&mut self.encoder, self.counts, value);
        }
        encode(&mut self.encoder.encode_family(&labels)?, self.counts, value)
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, counts: bool, value: &impl Number) -> fmt::Result {
    if counts {
        encoder.encode_counter::<NoLabelSet, _, u64>(value, None)
    } else {
        encoder.encode_gauge(value)
    }
}
