/** The server at a glance, as JSON for the page and for scripts. */

import type { SloClass } from "../config/slo-classes.ts"
import type { AppSpeculation } from "../core/protocol.ts"
import type { ReplicaRow } from "../serve/front.ts"
import type { Phase, Service, ServiceHost, TenantRow } from "../serve/service.ts"

export type StatusJson = ReturnType<typeof servingJson>

export function statusJson(host: ServiceHost): StatusJson | { phase: Phase; detail: string } {
  const { service, phase, detail } = host
  return service === null ? { phase, detail } : servingJson(host, service)
}

function servingJson(host: ServiceHost, service: Service) {
  const { phase, detail } = host
  const { front, attainment } = service
  const nowUs = front.nowUs
  const snapshot = front.snapshot()
  const rates = attainment.rates(nowUs)
  const windows = attainment.byClass(nowUs)
  const { watch, model } = front
  return {
    phase,
    detail,
    model: {
      name: model.name,
      random: model.random,
      parameters: model.parameters,
      context_tokens: front.contextTokens,
    },
    engine: {
      state: watch.state,
      detail: watch.detail === "" ? null : watch.detail,
      hung_steps: watch.trips,
      hung_s: watch.downUs.hung / 1e6,
      failing_s: watch.downUs.failing / 1e6,
    },
    policy: service.policy,
    default_class: service.classes.default.name,
    uptime_s: Math.round((Date.now() - service.startedMs) / 1000),
    window_s: attainment.windowS,
    requests: {
      running: snapshot.running,
      waiting: snapshot.waiting,
      best_effort: snapshot.bestEffort,
    },
    kv: {
      used_tokens: snapshot.kvUsedTokens,
      cached_tokens: snapshot.kvCachedTokens,
      capacity_tokens: snapshot.kvCapacityTokens,
    },
    prefill_backlog_tokens: snapshot.prefillBacklogTokens,
    calibration: snapshot.calibration,
    tokens_per_sec: rates.tokensPerSec,
    requests_per_sec: rates.requestsPerSec,
    step_ms: rates.stepMs,
    needs_key: host.tenants.needsKey,
    tenants: service.tenants.map(tenantJson),
    replicas: front.replicas.map(replicaJson),
    classes: service.classes.all.map((c) => ({
      ...classJson(c),
      window: windows[c.app],
      speculation: speculationJson(snapshot.speculation[c.app]),
    })),
  }
}

function replicaJson({ name, state, detail, snapshot, restarts }: ReplicaRow) {
  const { running = 0, waiting = 0, kvUsedTokens = 0, kvCapacityTokens = 0 } = snapshot ?? {}
  return {
    ...{ name, state, detail: detail === "" ? null : detail, restarts },
    requests: { running, waiting },
    kv: { used_tokens: kvUsedTokens, capacity_tokens: kvCapacityTokens },
  }
}

/** Counts since the start. */
function tenantJson({ name, weight, live, figures }: TenantRow) {
  const { kept, missed, bestEffort, refused, promptTokens, outputTokens } = figures
  return {
    ...{ name, weight, live },
    requests: { total: kept + missed, attained: kept },
    best_effort: bestEffort,
    refused,
    prompt_tokens: promptTokens,
    output_tokens: outputTokens,
  }
}

/** Null where no request has drafted yet. */
function speculationJson(app: AppSpeculation | undefined): object | null {
  if (app === undefined) return null
  const { acceptance, hitRate, length, draftedTokens, acceptedTokens } = app
  const counts = { drafted_tokens: draftedTokens, accepted_tokens: acceptedTokens }
  return { acceptance, hit_rate: hitRate, length, ...counts }
}

function classJson(c: SloClass) {
  const finite = (value: number, unit: number) => (Number.isFinite(value) ? value / unit : null)
  return {
    name: c.name,
    description: c.description,
    tier: c.tier === "slo" ? "slo" : "best_effort",
    thinking: c.thinking,
    ttft_ms: finite(c.slo.ttftUs, 1000),
    ttft_slowdown: c.slo.ttftSlowdown > 0 ? c.slo.ttftSlowdown : null,
    tpot_ms: finite(c.slo.tpotUs, 1000),
    thinking_tpot_ms: c.thinking ? finite(c.slo.thinkingTpotUs, 1000) : null,
    max_gap_ms: finite(c.slo.maxGapUs, 1000),
  }
}
