import { expect, test } from "bun:test";
import { Metrics, SERIES_MAX } from "./metrics.ts";

test("metrics render as Prometheus reads them", () => {
  const metrics = new Metrics();
  const requests = metrics.counter("hive_api_requests_total", "Requests.", ["operation", "code"]);
  requests.add(["DescribeVpcs", "ok"]);
  requests.add(["DescribeVpcs", "ok"], 2);
  requests.add(['a"b\\c\n', "ok"]);
  metrics.gauge("hive_api_open", "Open.").set([], 3);
  metrics.observedGauge("hive_api_now", "Now.", () => 7);
  const seconds = metrics.histogram("hive_api_seconds", "Time.", ["operation"], [0.1, 1]);
  seconds.observe(["x"], 0.1);
  seconds.observe(["x"], 0.5);
  seconds.observe(["x"], 5);
  expect(metrics.render()).toBe(`# HELP hive_api_requests_total Requests.
# TYPE hive_api_requests_total counter
hive_api_requests_total{operation="DescribeVpcs",code="ok"} 3
hive_api_requests_total{operation="a\\"b\\\\c\\n",code="ok"} 1
# HELP hive_api_open Open.
# TYPE hive_api_open gauge
hive_api_open 3
# HELP hive_api_now Now.
# TYPE hive_api_now gauge
hive_api_now 7
# HELP hive_api_seconds Time.
# TYPE hive_api_seconds histogram
hive_api_seconds_bucket{operation="x",le="0.1"} 1
hive_api_seconds_bucket{operation="x",le="1"} 2
hive_api_seconds_bucket{operation="x",le="+Inf"} 3
hive_api_seconds_sum{operation="x"} 5.6
hive_api_seconds_count{operation="x"} 3
`);
});

test("a metric holds a bounded number of series", () => {
  const metrics = new Metrics();
  const counter = metrics.counter("hive_test_total", "Test.", ["label"]);
  for (let n = 0; n < SERIES_MAX + 10; n++) counter.add([`v${n}`]);
  expect(metrics.render()).toContain('hive_test_total{label="other"} 10\n');
});

test("a name is registered once", () => {
  const metrics = new Metrics();
  metrics.counter("hive_x_total", "X.");
  expect(() => metrics.gauge("hive_x_total", "X.")).toThrow("registered once");
});
