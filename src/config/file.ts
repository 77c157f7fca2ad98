/** The one config file: SLO classes, tenants, API keys, backends, and every option of the server. */
import { z } from "zod"
import { UserError, userError } from "../errors.ts"
import { type ApiKeyConfig, buildKeys, keysSchema } from "./api-keys.ts"
import { type BackendConfig, backendsSchema, buildBackends } from "./backends.ts"
import { type Complaint, complaintsOf, FieldError, fieldName } from "./complaints.ts"
import { type Setting, settingsOf, settingsSchemas } from "./settings.ts"
import {
  BUILT_IN_CLASSES,
  buildClasses,
  classesSchema,
  defaultSloClasses,
  type SloClasses,
} from "./slo-classes.ts"
import { buildTenants, checkTenants, type TenantConfig, tenantsSchema } from "./tenants.ts"
import { parseYaml, readText, type YamlFile } from "./yaml-file.ts"

/** What a config file says. */
export interface ServerConfig {
  classes: SloClasses
  tenants: TenantConfig[]
  keys: ApiKeyConfig[]
  backends: BackendConfig[]
  /** Options, where the command line and the environment do not say them. */
  settings: Setting[]
}

const sectionsSchema = z.strictObject({
  default: z.string().optional().describe("the class of requests that name none (default: the first)"),
  classes: classesSchema,
  tenants: tenantsSchema.optional().describe("each has its share of the server where not all requests fit"),
  keys: keysSchema.optional().describe("API keys by name: with any of them requests need one"),
  backends: backendsSchema.optional().describe("other servers that compute, in place of an engine here"),
})

export const configSchema = sectionsSchema.extend(settingsSchemas) as unknown as typeof sectionsSchema

/** Reads a config file. Throws a UserError that names the file, line, column and field. */
export function readConfig(path: string): ServerConfig {
  return parseConfig(readText(path), path)
}

/** The classes of a config file. */
export function readSloClasses(path: string): SloClasses {
  return readConfig(path).classes
}

export function parseSloClasses(text: string, path: string): SloClasses {
  return parseConfig(text, path).classes
}

/** Without a file. */
export function emptyConfig(): ServerConfig {
  return { classes: defaultSloClasses(), tenants: [], keys: [], backends: [], settings: [] }
}

/** `path` is only for messages. Throws UserError for the first thing that is wrong. */
export function parseConfig(text: string, path: string): ServerConfig {
  const file = parseYaml(text, path)
  const { config, complaints } = look(file)
  if (config !== null) return config
  throw userError("config_invalid", place(file, path, complaints[0]!))
}

/** All that is wrong with a file, a line each; none: it is right. Throws UserError where it cannot be read. */
export function faultsOf(path: string): string[] {
  const text = readText(path)
  let file: YamlFile
  try {
    file = parseYaml(text, path)
  } catch (error) {
    if (error instanceof UserError) return [error.message]
    throw error
  }
  return look(file).complaints.map((complaint) => {
    const { path: where, detail } = place(file, path, complaint)
    return `${where}: ${detail}`
  })
}

function place(
  file: YamlFile,
  path: string,
  { field, message }: Complaint,
): { path: string; detail: string } {
  return {
    path: field.length === 0 ? path : file.placeOf(field),
    detail: `${fieldName(field) || "the file"} ${message}`.trim(),
  }
}

type Looked = { config: ServerConfig; complaints: never[] } | { config: null; complaints: Complaint[] }

function look({ value }: YamlFile): Looked {
  const parsed = configSchema.safeParse(withClasses(value ?? {}))
  if (!parsed.success) return { config: null, complaints: complaintsOf(parsed.error, configSchema) }
  try {
    return { config: built(parsed.data), complaints: [] }
  } catch (error) {
    if (error instanceof FieldError) {
      const message = error.message.slice(fieldName(error.field).length + 2)
      return { config: null, complaints: [{ field: error.field, message }] }
    }
    if (error instanceof UserError)
      return { config: null, complaints: [{ field: [], message: `cannot be meant: ${error.message}` }] }
    throw error
  }
}

function built(file: z.output<typeof configSchema>): ServerConfig {
  const classes = buildClasses(file)
  const named = buildTenants(file.tenants ?? {})
  checkTenants(named)
  const keys = buildKeys(file.keys ?? {}, { classes, tenants: named })
  return {
    ...{ classes, keys, tenants: withOwners(named, keys) },
    backends: buildBackends(file.backends ?? []),
    settings: settingsOf(file),
  }
}

/** Tenants that only keys name are tenants as well. */
function withOwners(tenants: readonly TenantConfig[], keys: readonly ApiKeyConfig[]): TenantConfig[] {
  const all = new Map(tenants.map((tenant) => [tenant.name, tenant]))
  for (const { tenant: name, weight } of keys) {
    const known = all.get(name)
    const own = { name, weight: weight ?? known?.weight ?? 1, keys: known?.keys ?? [] }
    all.set(name, own)
  }
  return [...all.values()]
}

/** A file that has other sections has the built-in classes. */
function withClasses(file: unknown): unknown {
  if (typeof file !== "object" || file === null || Array.isArray(file)) return file
  return Object.keys(file).length > 0 && !("classes" in file) ? { ...BUILT_IN_CLASSES, ...file } : file
}
