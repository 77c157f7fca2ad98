/** Where a command's options come from: its command line, else the environment, else its config file, else its defaults. */
import { type Command, InvalidArgumentError, type Option } from "commander"
import { meant } from "../config/complaints.ts"
import { readConfig } from "../config/file.ts"
import { UserError } from "../errors.ts"

const PREFIX = "SLOS_SERVE_"
/** Other programs, or other parts of this one, read these. */
const NOT_OPTIONS = ["CACHE", "CLASSES", "KEY", "NODE", "PYPI", "IMAGE"]
/** Options that may stand several times: in the environment blanks or lines are between them. */
const LISTS = ["allowedHost", "backend", "corsOrigin", "endpoint", "peer", "set", "tenant"]
/** A file says nothing of these commands' options. */
const WITH_FILE = ["serve", "vllm", "show"]

export type Environment = Readonly<Record<string, string | undefined>>

/** The variable that an option may be given by: SLOS_SERVE_PORT for --port. Null: none. */
export function variableOf(option: Option): string | null {
  const name = option
    .attributeName()
    .replace(/[A-Z]/g, (letter) => `_${letter}`)
    .toUpperCase()
  return NOT_OPTIONS.includes(name) || name === "VERSION" ? null : PREFIX + name
}

/** Options that neither the command line nor the environment says, with their defaults, by what a command's action got. */
const renewable = new WeakMap<object, ReadonlyMap<string, unknown>>()

/** Those that the config file may change while the command runs; none where there is no file. */
export const renewableOf = (options: object): ReadonlyMap<string, unknown> =>
  renewable.get(options) ?? new Map()

/** Likewise for options that another process has read. */
export function renewableAs(options: object, open: ReadonlyMap<string, unknown>): void {
  renewable.set(options, open)
}

/** Before its action, a command gets what its command line does not say. */
export function readSources(command: Command, environment: Environment = process.env): void {
  command.hook("preAction", (_program, acting) => {
    if (acting !== command) return
    fromEnvironment(command, environment)
    if (WITH_FILE.includes(command.name())) fromFile(command)
  })
}

/** Takes options out of the environment of a program of ours that is given its own. */
export function noOptions(environment: Environment): Record<string, undefined> {
  const isOption = (name: string) =>
    name.startsWith(PREFIX) && !NOT_OPTIONS.some((one) => name.startsWith(PREFIX + one))
  return Object.fromEntries(
    Object.keys(environment).flatMap((name) => (isOption(name) ? [[name, undefined]] : [])),
  )
}

function fromEnvironment(command: Command, environment: Environment): void {
  for (const option of command.options) {
    const name = variableOf(option)
    const text = name === null ? undefined : environment[name]
    if (text === undefined || text === "" || isServiceLink(text)) continue
    if (!mayBeSet(command, option)) continue
    const key = option.attributeName()
    command.setOptionValueWithSource(key, readValue(option, text, name!), "env")
  }
}

/** Kubernetes gives every pod the address of a service named slos-serve as SLOS_SERVE_PORT. */
const isServiceLink = (text: string): boolean => /^(tcp|udp|sctp):\/\//.test(text)

/** The command line is stronger. */
function mayBeSet(command: Command, option: Option): boolean {
  const source = command.getOptionValueSource(option.attributeName())
  return source === undefined || source === "default"
}

function readValue(option: Option, text: string, variable: string): unknown {
  if (option.isBoolean() || option.negate) return readYes(text, variable)
  const { parseArg } = option
  if (parseArg === undefined) return text
  const parts = LISTS.includes(option.attributeName())
    ? text.split(/\s+/).filter((part) => part !== "")
    : [text]
  try {
    return parts.reduce<unknown>((before, part) => parseArg(part, before as never), option.defaultValue)
  } catch (error) {
    if (error instanceof InvalidArgumentError)
      throw new UserError(`the environment variable ${variable} (for ${option.long}): ${error.message}`)
    throw error
  }
}

function readYes(text: string, variable: string): boolean {
  const word = text.trim().toLowerCase()
  if (["true", "1", "yes", "on"].includes(word)) return true
  if (["false", "0", "no", "off"].includes(word)) return false
  throw new UserError(
    `the environment variable ${variable} must be true or false, not ${JSON.stringify(text)}`,
  )
}

function fromFile(command: Command): void {
  const options = command.opts<Record<string, unknown>>()
  const path = options.config
  if (typeof path !== "string") return
  const open = command.options.filter((option) => mayBeSet(command, option))
  const defaults = open.map((option) => [option.attributeName(), options[option.attributeName()]] as const)
  renewable.set(options, new Map(defaults))
  for (const { option, value } of readConfig(path).settings) {
    const known = command.options.find((one) => one.attributeName() === option)
    if (known !== undefined && mayBeSet(command, known))
      command.setOptionValueWithSource(option, value, "config")
  }
}

/** Fields of a file that a command has no option for. */
export function notOf(command: Command, path: string): string[] {
  const known = new Set(command.options.map((option) => option.attributeName()))
  return readConfig(path)
    .settings.filter(({ option }) => !known.has(option))
    .map(({ field }) => field.join("."))
}

/** Variables that look like options of a command and are none. */
export function slipsIn(command: Command, environment: Environment): string[] {
  const known = command.options.flatMap((option) => variableOf(option) ?? [])
  return Object.keys(environment)
    .filter(
      (name) => name.startsWith(PREFIX) && !known.includes(name) && !isServiceLink(environment[name] ?? ""),
    )
    .flatMap((name) => {
      const near = meant(name, known)
      return near === "" ? [] : [`the environment variable ${name} is none of ${command.name()}'s${near}`]
    })
}
