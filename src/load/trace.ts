/** Published request traces in: Azure CSV (TIMESTAMP,ContextTokens,GeneratedTokens) and length CSV
 * (num_prefill_tokens,num_decode_tokens). A malformed line is reported by file, line and remedy. */
import { readFileSync } from "node:fs"
import { parse } from "csv-parse/sync"
import { UserError } from "../errors.ts"

/** One request of a trace. `atMs`: since the trace's first request; undefined in traces of lengths only. */
export interface TraceRow {
  atMs?: number
  promptTokens: number
  outputTokens: number
}

export interface Trace {
  path: string
  rows: TraceRow[]
}

interface Columns {
  time?: string
  prompt: string
  output: string
}

const FORMATS: readonly Columns[] = [
  { time: "TIMESTAMP", prompt: "ContextTokens", output: "GeneratedTokens" },
  { prompt: "num_prefill_tokens", output: "num_decode_tokens" },
]

export function readTrace(path: string): Trace {
  return { path, rows: parseTrace(readText(path), path) }
}

/** Reads a text file; every failure is the user's to mend. */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    throw new UserError(
      `cannot read ${path}: ${code === "ENOENT" ? "no such file" : (error as Error).message}`,
    )
  }
}

/** `name` is what error messages call the file. Rows are sorted by time where there is one. */
export function parseTrace(text: string, name: string): TraceRow[] {
  let records: { record: Record<string, string>; info: { lines: number } }[]
  try {
    records = parse(text, { columns: true, bom: true, trim: true, skip_empty_lines: true, info: true })
  } catch (error) {
    throw new UserError(`${name}: ${(error as Error).message}; mend or delete that line`)
  }
  const first = records[0]
  if (first === undefined)
    throw new UserError(`${name}: no requests in it; expected a header line and one request a line`)
  const columns = FORMATS.find((format) => format.prompt in first.record && format.output in first.record)
  if (columns === undefined) {
    throw new UserError(
      `${name}:1: unknown columns ${Object.keys(first.record).join(",")}; expected ` +
        FORMATS.map((format) => Object.values(format).join(",")).join(" or "),
    )
  }
  const rows = records.map(({ record, info }) => {
    const row: TraceRow = {
      promptTokens: wholeNumber(record, columns.prompt, name, info.lines),
      outputTokens: wholeNumber(record, columns.output, name, info.lines),
    }
    if (columns.time !== undefined && columns.time in record) {
      row.atMs = time(record[columns.time]!, columns.time, name, info.lines)
    }
    return row
  })
  if (rows[0]!.atMs === undefined) return rows
  rows.sort((a, b) => a.atMs! - b.atMs!)
  const start = rows[0]!.atMs
  for (const row of rows) row.atMs = row.atMs! - start
  return rows
}

function wholeNumber(record: Record<string, string>, column: string, file: string, line: number): number {
  const text = record[column] ?? ""
  const value = Number(text)
  if (text === "" || !Number.isInteger(value) || value < 1 || value > 1e7) {
    throw new UserError(
      `${file}:${line}: ${column} is ${JSON.stringify(text)}; expected a whole number of tokens ≥ 1 (mend or delete the line)`,
    )
  }
  return value
}

/** "2023-11-16 18:17:03.9799600" (UTC, 100 ns digits), ISO 8601, or seconds as a number. */
function time(text: string, column: string, file: string, line: number): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000
  const match = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:?\d\d)?$/.exec(text)
  const base = match === null ? Number.NaN : Date.parse(`${match[1]}T${match[2]}${match[4] ?? "Z"}`)
  if (Number.isNaN(base)) {
    throw new UserError(
      `${file}:${line}: ${column} is ${JSON.stringify(text)}; expected a time such as 2023-11-16 18:17:03.979 (mend or delete the line)`,
    )
  }
  return base + Number(match?.[3] ?? 0) * 1000
}
