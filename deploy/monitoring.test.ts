/** The dashboard, the alerts and the metrics against a real Prometheus (on the PATH, or in $PROMETHEUS_DIR): what it refuses,
 * what its tests say, and whether every panel shows something of a server under load. vLLM's own panels must as well. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parse } from "yaml"
import { freePort } from "../src/free-port.ts"
import { testServer } from "../src/http/testing.ts"

const HERE = import.meta.dirname
const tool = (name: string) => (process.env.PROMETHEUS_DIR ? join(process.env.PROMETHEUS_DIR, name) : name)
const found = spawnSync(tool("promtool"), ["--version"]).status === 0
if (!found)
  console.log("promtool is not on the PATH nor in $PROMETHEUS_DIR: not tried against a real Prometheus")

/** What vLLM's published dashboards ask for (its examples/observability, 2026), one of each kind. */
const QUANTILES = ["e2e_request_latency", "inter_token_latency", "time_to_first_token"]
const SUMS = ["queue", "prefill", "decode", "inference"].map((part) => `request_${part}_time_seconds`)
const VLLM_QUERIES = [
  ...QUANTILES.flatMap((name) => [
    `histogram_quantile(0.99, sum by(le) (rate(vllm:${name}_seconds_bucket{model_name="$model_name"}[$__rate_interval])))`,
    `rate(vllm:${name}_seconds_sum{model_name="$model_name"}[$__rate_interval]) / rate(vllm:${name}_seconds_count{model_name="$model_name"}[$__rate_interval])`,
    `sum(increase(vllm:${name}_seconds_sum[$__range])) / sum(increase(vllm:${name}_seconds_count[$__range]))`,
  ]),
  'rate(vllm:prompt_tokens_total{model_name="$model_name"}[$__rate_interval])',
  'rate(vllm:generation_tokens_total{model_name="$model_name"}[$__rate_interval])',
  'vllm:num_requests_running{model_name="$model_name"}',
  'vllm:num_requests_waiting{model_name="$model_name"}',
  'vllm:kv_cache_usage_perc{model_name="$model_name"}',
  'sum by(le) (increase(vllm:request_prompt_tokens_bucket{model_name="$model_name"}[$__rate_interval]))',
  'sum by(le) (increase(vllm:request_generation_tokens_bucket{model_name="$model_name"}[$__rate_interval]))',
  'sum by(finished_reason) (increase(vllm:request_success_total{model_name="$model_name"}[$__rate_interval]))',
  ...SUMS.map((name) => `rate(vllm:${name}_sum{model_name="$model_name"}[$__rate_interval])`),
  'rate(vllm:request_max_num_generation_tokens_sum{model_name="$model_name"}[$__rate_interval])',
  'sum(rate(vllm:prompt_tokens_total{model_name=~"$model_name"}[$__rate_interval])) / sum(rate(vllm:request_success_total{model_name=~"$model_name"}[$__rate_interval]))',
  'sum by (model_name) (rate(vllm:request_success_total{finished_reason="error"}[$__range])) / (sum by (model_name) (rate(vllm:request_success_total[$__range])) > 0)',
  "max by (model_name) (max_over_time(vllm:kv_cache_usage_perc[$__range]))",
  "round(sum by (model_name) (increase(vllm:num_preemptions_total[$__range])))",
  "sum(rate(vllm:prefix_cache_hits_total[$__rate_interval])) / (sum(rate(vllm:prefix_cache_queries_total[$__rate_interval])) > 0)",
  "sum by(le) (increase(vllm:iteration_tokens_total_bucket[$__rate_interval]))",
  "rate(vllm:request_params_n_sum[$__rate_interval])",
  "rate(vllm:request_params_max_tokens_sum[$__rate_interval])",
  "histogram_quantile(0.5, sum by(le) (rate(vllm:time_per_output_token_seconds_bucket[$__rate_interval])))",
  "count(vllm:cache_config_info)",
]

interface Panel {
  title: string
  targets?: { expr: string }[]
}
const dashboard = JSON.parse(readFileSync(join(HERE, "grafana/slos-serve.json"), "utf8")) as {
  panels: Panel[]
}
const panels = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr }): [string, string] => [title, expr]),
)
const rules = readFileSync(join(HERE, "prometheus/alerts.yml"), "utf8")
const named = (text: string) => [...text.matchAll(/\b(vllm:\w+|slos_serve_\w+)/g)].map((match) => match[1]!)

let server: Awaited<ReturnType<typeof testServer>>
const folder = mkdtempSync(join(tmpdir(), "slos-prometheus-"))
beforeAll(async () => {
  server = await testServer({ listen: true })
})
afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true, force: true })
})

/** Chats of two classes, some with a prefix in common, until `over`. */
async function load(over: () => boolean): Promise<void> {
  while (!over())
    await Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        const response = await fetch(`${server.url}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify({
            messages: [{ role: "user", content: `${"Tell me all of it. ".repeat(20)} ${i % 3}` }],
            ...{ max_tokens: 10, n: 1 + (i % 2), slo: { ttft_ms: 500, tpot_ms: 100 } },
            ...(i === 5 && { service_tier: "flex" }),
          }),
        })
        await response.text()
      }),
    )
}

it("asks for no metric that the server does not have", async () => {
  await load(once())
  const text = await (await fetch(`${server.url}/metrics`)).text()
  const has = new Set(
    [...text.matchAll(/^# TYPE (\S+) (\w+)/gm)].flatMap(([, name, type]) => withParts(name!, type!)),
  )
  // Where the scaling signal is on, and what Prometheus itself records.
  const others = /^slos_serve_replicas|^slos_serve_preemptions_total$/
  const asked = [...panels.map(([, expr]) => expr), ...VLLM_QUERIES, rules].flatMap(named)
  expect(asked.length).toBeGreaterThan(50)
  expect([...new Set(asked)].filter((name) => !has.has(name) && !others.test(name))).toEqual([])
})

it("compose, Prometheus and Grafana name the same places", () => {
  const yaml = (path: string) => parse(readFileSync(join(HERE, path), "utf8"))
  const { services } = yaml("compose.yaml")
  const [{ static_configs: scraped }] = yaml("prometheus/prometheus.yml").scrape_configs
  expect(scraped[0].targets).toEqual(["server:8080"])
  expect(services.server.command).toContain("8080")
  expect(yaml("grafana/provisioning/datasources/prometheus.yaml").datasources[0].url).toBe(
    "http://prometheus:9090",
  )
  const { path } = yaml("grafana/provisioning/dashboards/slos-serve.yaml").providers[0].options
  const mounts = Object.values<{ volumes?: string[] }>(services).flatMap(({ volumes = [] }) => volumes)
  expect(mounts.some((mount) => mount.includes(path))).toBe(true)
  for (const mount of mounts.filter((one) => one.startsWith("./")))
    expect(readFileSync.bind(null, join(HERE, mount.split(":")[0]!)), mount).not.toThrow(/ENOENT/)
})

describe.skipIf(!found)("a real Prometheus", () => {
  const promtool = (...args: string[]) =>
    spawnSync(tool("promtool"), args, { cwd: join(HERE, "prometheus"), encoding: "utf8" })

  it("reads the configuration and the alerts, whose tests pass", () => {
    const checked = promtool("check", "config", "prometheus.yml")
    expect(checked.status, checked.stderr + checked.stdout).toBe(0)
    const tested = promtool("test", "rules", "alerts.test.yml")
    expect(tested.status, tested.stderr + tested.stdout).toBe(0)
  })

  it("finds no fault with the metrics but those that vLLM's names have", async () => {
    await load(once())
    const input = await (await fetch(`${server.url}/metrics`)).text()
    const { stdout, stderr } = spawnSync(tool("promtool"), ["check", "metrics"], { input, encoding: "utf8" })
    const faults = `${stdout}${stderr}`.split("\n").filter((line) => line !== "")
    const vllms = /^vllm:\S+ metric names should not contain ':'$|^vllm:iteration_tokens_total non-counter/
    expect(faults.filter((line) => !vllms.test(line))).toEqual([])
  })

  let prometheus: ChildProcess | null = null
  let address = ""
  let over = false
  let loading: Promise<void>
  beforeAll(async () => {
    const port = await freePort()
    address = `http://127.0.0.1:${port}`
    const target = new URL(server.url).host
    const config = readFileSync(join(HERE, "prometheus/prometheus.yml"), "utf8")
      .replace("server:8080", target)
      .replace(/(scrape|evaluation)_interval: \w+/g, "$1_interval: 1s")
    writeFileSync(join(folder, "prometheus.yml"), config)
    cpSync(join(HERE, "prometheus/alerts.yml"), join(folder, "alerts.yml"))
    prometheus = spawn(tool("prometheus"), [
      ...[`--config.file=${folder}/prometheus.yml`, `--storage.tsdb.path=${folder}/data`],
      ...[`--web.listen-address=127.0.0.1:${port}`, "--log.level=error"],
    ])
    loading = load(() => over)
  })
  afterAll(async () => {
    over = true
    await loading
    prometheus?.kill()
  })

  async function values(query: string): Promise<number[]> {
    const url = `${address}/api/v1/query?query=${encodeURIComponent(query)}`
    const answer = await fetch(url).catch(() => null)
    if (answer?.ok !== true) {
      expect(await answer?.text()).not.toContain("bad_data")
      return []
    }
    const { data } = (await answer.json()) as { data: { result: { value: [number, string] }[] } }
    return data.result.map(({ value }) => Number(value[1])).filter((value) => !Number.isNaN(value))
  }
  const count = async (query: string) => (await values(query))[0] ?? 0
  const filled = (query: string) =>
    query
      .replaceAll("$__rate_interval", "10s")
      .replaceAll("$__range", "30s")
      .replaceAll("$model_name", "fake")
      .replaceAll("$instance", ".*")

  it("scrapes the server", async () => {
    const scrapes = () => count("count_over_time(vllm:num_requests_running[1m])")
    await expect.poll(scrapes, { timeout: 50_000, interval: 1000 }).toBeGreaterThan(8)
  })

  it.each(panels)("shows something in our panel %s: %s", async (title, expr) => {
    const empty = title.startsWith("Replicas")
    await expect
      .poll(async () => (await values(filled(expr))).length, { interval: 1000 })
      .toBeGreaterThan(empty ? -1 : 0)
  })

  it.each(VLLM_QUERIES)("answers vLLM's panels: %s", async (expr) => {
    await expect.poll(async () => (await values(filled(expr))).length, { interval: 1000 }).toBeGreaterThan(0)
  })

  it("evaluates every rule", async () => {
    const { data } = (await (await fetch(`${address}/api/v1/rules`)).json()) as {
      data: { groups: { rules: { name: string; health: string }[] }[] }
    }
    const all = data.groups.flatMap((group) => group.rules)
    expect(all.length).toBeGreaterThan(10)
    expect(all.filter(({ health }) => health === "err")).toEqual([])
  })
})

/** False the first time that it is asked. */
function once(): () => boolean {
  let asked = 0
  return () => asked++ > 0
}

/** The names of samples that a metric of this type has. */
function withParts(name: string, type: string): string[] {
  return type === "histogram" ? [name, `${name}_bucket`, `${name}_sum`, `${name}_count`] : [name]
}
