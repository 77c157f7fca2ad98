/** Spans to an OpenTelemetry collector, by OTLP over HTTP, with OpenTelemetry's own packages. */
import { type Context, ROOT_CONTEXT, SpanKind, SpanStatusCode, type Tracer, trace } from "@opentelemetry/api"
import { setGlobalErrorHandler, W3CTraceContextPropagator } from "@opentelemetry/core"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto"
import { defaultResource, resourceFromAttributes } from "@opentelemetry/resources"
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace"
import type { AnswerRecord } from "../explain/record.ts"
import { type Asked, type SpanPlan, spansOf } from "./spans.ts"

/** Headers of a request that name the trace that it belongs to. */
export type TraceHeaders = Readonly<Record<string, string | string[] | undefined>>

export interface OtlpOptions {
  /** Of the collector: its base, or with /v1/traces. */
  endpoint: string
  /** Of SLOs-Serve. */
  version: string
  /** Told that spans cannot be sent, now and then. */
  warn: (message: string) => void
  /** Spans wait so long for others, ms. Default 5000. */
  delayMs?: number
}

const WARN_EVERY_MS = 60_000

export class OtlpTraces {
  readonly #provider: TracerProvider
  readonly #tracer: Tracer
  readonly #propagator = new W3CTraceContextPropagator()
  readonly #failed: (error: unknown) => void

  constructor({ endpoint, version, warn, delayMs = 5000 }: OtlpOptions) {
    const base = endpoint.replace(/\/+$/, "")
    const url = base.endsWith("/v1/traces") ? base : `${base}/v1/traces`
    this.#failed = nowAndThen(url, warn)
    setGlobalErrorHandler(this.#failed)
    const resource = resourceFromAttributes({ "service.name": "slos-serve", "service.version": version })
    this.#provider = new TracerProvider({
      resource: defaultResource().merge(resource),
      // A client that keeps its trace to itself has ours to itself as well.
      sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
      spanProcessors: [
        new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url }), scheduledDelayMillis: delayMs }),
      ],
    })
    this.#tracer = this.#provider.getTracer("slos-serve", version)
  }

  /** A request and all its answers have ended. */
  ended(records: readonly AnswerRecord[], asked: Asked, headers: TraceHeaders): void {
    const parent = this.#propagator.extract(ROOT_CONTEXT, headers, GETTER)
    this.#start(spansOf(records, asked), SpanKind.SERVER, parent)
  }

  /** Sends what waits, and ends. */
  close(): Promise<void> {
    return this.#provider.shutdown().catch(this.#failed)
  }

  #start(plan: SpanPlan, kind: SpanKind, parent: Context): void {
    const { name, startMs, endMs, attributes, events, error, children } = plan
    const span = this.#tracer.startSpan(name, { kind, startTime: startMs, attributes }, parent)
    for (const { name: event, atMs, attributes: of } of events) span.addEvent(event, of, atMs)
    if (error !== null) span.setStatus({ code: SpanStatusCode.ERROR, message: error })
    const inside = trace.setSpan(parent, span)
    for (const child of children) this.#start(child, SpanKind.INTERNAL, inside)
    span.end(endMs)
  }
}

const GETTER = {
  keys: (headers: TraceHeaders) => Object.keys(headers),
  get: (headers: TraceHeaders, key: string) => headers[key],
}

/** A collector that is away must not fill the log. */
function nowAndThen(url: string, warn: (message: string) => void): (error: unknown) => void {
  let lastMs = Number.NEGATIVE_INFINITY
  return (error) => {
    const nowMs = performance.now()
    if (nowMs - lastMs < WARN_EVERY_MS) return
    lastMs = nowMs
    const { message } = error instanceof Error ? error : { message: String(error) }
    warn(`traces cannot be sent to ${url} (${message.slice(0, 200)}); check --otlp-endpoint`)
  }
}
