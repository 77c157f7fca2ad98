/** What Envoy's messages tell beside their bodies: headers, and the metadata of the endpoint picker protocol. */
import type { Headers } from "./ask.ts"
import type { Endpoint } from "./chooser.ts"
import { DESTINATION, DESTINATION_NAMESPACE } from "./messages.ts"
import type { HttpHeaders, ProcessingRequest, StructValue } from "./wire.ts"

const SUBSET_NAMESPACE = "envoy.lb.subset_hint"
const SUBSET = `${DESTINATION}-subset`
const SERVED = `${DESTINATION}-served`

/** Of a header that comes twice the first counts: the second may be a client's that slipped past the gateway. */
export function headersOf({ headers }: HttpHeaders): Headers {
  const named: Record<string, string> = Object.create(null)
  for (const { key, value, rawValue } of headers?.headers ?? []) {
    const name = (key ?? "").toLowerCase()
    named[name] ??=
      rawValue !== undefined && rawValue.length > 0 ? rawValue.toString("latin1") : (value ?? "")
  }
  return named
}

/** The endpoints that it may go to; null: no word of that. */
export function subsetOf(message: ProcessingRequest): Endpoint[] | null {
  const subset = metadata(message, SUBSET_NAMESPACE, SUBSET)
  if (subset === undefined) return null
  const { stringValue, listValue } = subset
  const names = stringValue?.split(",") ?? (listValue?.values ?? []).map((each) => each.stringValue ?? "")
  return [...new Set(names.map((name) => name.trim()).filter((name) => name !== ""))]
}

/** The endpoint whose response this is, where Envoy tells. */
export function servedBy(message: ProcessingRequest): Endpoint | null {
  const served = metadata(message, DESTINATION_NAMESPACE, SERVED)?.stringValue
  return served === undefined || served === "" ? null : served
}

function metadata(message: ProcessingRequest, namespace: string, key: string): StructValue | undefined {
  return message.metadataContext?.filterMetadata?.[namespace]?.fields?.[key]
}
