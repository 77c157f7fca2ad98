/** A receiver of OTLP over HTTP in this process, as a collector is one. */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { loadSync } from "@grpc/proto-loader"

type Value = string | number | boolean | string[]

export interface ReceivedSpan {
  traceId: string
  spanId: string
  parentId: string
  name: string
  kind: number
  startMs: number
  endMs: number
  attributes: Record<string, Value>
  events: { name: string; atMs: number; attributes: Record<string, Value> }[]
  status: { code: number; message: string }
  service: Value | undefined
}

interface AnyValue {
  value: "stringValue" | "boolValue" | "intValue" | "doubleValue" | "arrayValue"
  stringValue: string
  boolValue: boolean
  intValue: string
  doubleValue: number
  arrayValue: { values: AnyValue[] }
}
type KeyValues = { key: string; value: AnyValue }[]
interface WireSpan {
  traceId: Buffer
  spanId: Buffer
  parentSpanId: Buffer
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: KeyValues
  events: { timeUnixNano: string; name: string; attributes: KeyValues }[]
  status: { code: number; message: string } | null
}
interface Exported {
  resourceSpans: { resource: { attributes: KeyValues }; scopeSpans: { spans: WireSpan[] }[] }[]
}

const loaded = loadSync(join(import.meta.dirname, "otlp-testing.proto"), {
  ...{ longs: String, defaults: true, oneofs: true, arrays: true },
})
const { Export: exported } = loaded["otlp.TraceService"] as unknown as {
  Export: { requestDeserialize(bytes: Buffer): Exported }
}

export async function openReceiver() {
  const spans: ReceivedSpan[] = []
  const asked: { path: string; type: string; headers: Record<string, unknown> }[] = []
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part as Buffer)
    asked.push({
      ...{ path: request.url!, type: String(request.headers["content-type"]), headers: request.headers },
    })
    spans.push(...read(exported.requestDeserialize(Buffer.concat(parts))))
    response.setHeader("content-type", "application/x-protobuf").end()
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve)
      server.closeAllConnections()
    })
  return { url, spans, asked, close }
}

function read({ resourceSpans }: Exported): ReceivedSpan[] {
  return resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const service = attributesOf(resource.attributes)["service.name"]
    return scopeSpans.flatMap(({ spans }) => spans.map((span) => readSpan(span, service)))
  })
}

function readSpan(span: WireSpan, service: Value | undefined): ReceivedSpan {
  const { name, kind, attributes, events, status } = span
  const ms = (nano: string) => Number(BigInt(nano) / 1000n) / 1000
  const id = (bytes: Buffer) => bytes.toString("hex")
  return {
    ...{ traceId: id(span.traceId), spanId: id(span.spanId), parentId: id(span.parentSpanId), name, kind },
    ...{ startMs: ms(span.startTimeUnixNano), endMs: ms(span.endTimeUnixNano), service },
    attributes: attributesOf(attributes),
    events: events.map((event) => ({
      ...{ name: event.name, atMs: ms(event.timeUnixNano), attributes: attributesOf(event.attributes) },
    })),
    status: { code: status?.code ?? 0, message: status?.message ?? "" },
  }
}

function attributesOf(pairs: KeyValues): Record<string, Value> {
  return Object.fromEntries(pairs.map(({ key, value }) => [key, plainOf(value)]))
}

function plainOf(any: AnyValue): Value {
  if (any.value === "intValue") return Number(any.intValue)
  if (any.value === "arrayValue") return any.arrayValue.values.map((one) => String(plainOf(one)))
  return any[any.value]
}
