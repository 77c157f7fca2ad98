/** Options of every command that serves the OpenAI API: where, to which tenants, within which limits. */
import { type Command, Option } from "commander"
import { parseOrigin } from "../config/origins.ts"
import { parseInlineTenant, type TenantConfig } from "../config/tenants.ts"
import { PROTECTABLE, type Protected } from "../http/protectable.ts"
import type { ObjectivesFrom } from "../serve/key-ring.ts"
import { byteSize, httpUrl, listOf, port, wholeNumber } from "./numbers.ts"

export interface ApiOptions {
  servedName?: string
  host: string
  port: number
  config?: string
  /** What that file says, where another process has read it for this one. */
  configText?: string
  tenant?: TenantConfig[]
  requireKey: boolean
  objectives: ObjectivesFrom
  tlsCert?: string
  tlsKey?: string
  allowedHost?: string[]
  protect?: Protected[]
  trustFairnessId?: boolean
  maxQueue: number
  /** Bytes. */
  bodyLimit: number
  /** Seconds. */
  requestTimeout: number
  corsOrigin?: string[]
  storedResponses: number
  /** Of all of them. */
  storedResponseBytes: number
  drainTimeout: number
  logLevel?: string
  otlpEndpoint?: string
}

export function addApiOptions(command: Command): Command {
  return command
    .option("--served-name <name>", "the model's name in the API (default: from the model)")
    .option("--host <address>", "address to listen on", "127.0.0.1")
    .option("-p, --port <number>", "port to listen on; 0 picks a free one", port, 8080)
    .option(
      "--tls-cert <file>",
      "serve over TLS with this certificate (PEM); read again when it changes, and at SIGHUP",
    )
    .option("--tls-key <file>", "its key (PEM)")
    .option(
      "--allowed-host <name>",
      "a name that clients may use for this server (.example.com: all below it; *: any); once for each. On a loopback " +
        "address others than localhost's are refused",
      (text: string, before: string[] = []) => [...before, text],
    )
    .option(
      "--protect <what>",
      "routes outside the API that need a key as well, where there are keys: health, metrics, status, with commas between",
      listOf(PROTECTABLE),
    )
    .option(
      "-c, --config <file>",
      "SLO classes, tenants, API keys and all options (docs/config.md); read again at SIGHUP",
    )
    .option(
      "--tenant <name=key,weight>",
      "an API key and its tenant, with its share where not all fit (default: 1); once for each; also in the config",
      (text: string, before: TenantConfig[] = []) => [...before, parseInlineTenant(text, "--tenant")],
    )
    .addOption(
      new Option(
        "--objectives <from>",
        "requests that may ask for objectives of their own (headers, slo, vllm_xargs): all, those with a key, or none; " +
          "the others name SLO classes",
      )
        .choices(["all", "keys", "none"])
        .default("all"),
    )
    .option("--no-require-key", "requests without a key are the default tenant's instead of refused")
    .option(
      "--trust-fairness-id",
      "the header x-llm-d-inference-fairness-id, or x-gateway-inference-fairness-id, names the tenant, whatever the key (default where no tenant has one)",
    )
    .option("--no-trust-fairness-id", "those headers are ignored (default where tenants have keys)")
    .option(
      "--max-queue <n>",
      "most live requests, every answer of n counted; more get 429, but a tenant below its share of them gets in, and up to a quarter more whose SLOs can be promised",
      wholeNumber(1, 1_000_000),
      2048,
    )
    .option("--body-limit <bytes>", "largest request body (8m, 512k)", byteSize, 8 * 2 ** 20)
    .option(
      "--stored-responses <n>",
      "most responses of /v1/responses that are kept, of all tenants; 0: none is",
      wholeNumber(0, 1_000_000),
      4096,
    )
    .option("--stored-response-bytes <bytes>", "most bytes of them (64m)", byteSize, 64 * 2 ** 20)
    .option("--request-timeout <s>", "a request must be received within this time", wholeNumber(1, 3600), 30)
    .option(
      "--cors-origin <origin>",
      "web pages of this origin may call the API (https://app.example.com, or * for all); once for each",
      (text: string, before: string[] = []) => [...before, parseOrigin(text)],
    )
    .option(
      "--drain-timeout <s>",
      "on SIGTERM, wait this long for running requests",
      wholeNumber(0, 86_400),
      30,
    )
    .option(
      "--otlp-endpoint <url>",
      "send OpenTelemetry traces there by OTLP over HTTP (http://collector:4318); headers: OTEL_EXPORTER_OTLP_HEADERS",
      httpUrl,
    )
    .option("--log-level <level>", "fatal, error, warn, info, debug, trace or silent")
}
