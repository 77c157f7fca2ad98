/** A YAML file read so that every complaint about it can say where: its value, and the line and column of each field. */
import { readFileSync } from "node:fs"
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml"
import { userError } from "../errors.ts"

/** Names of maps and places of lists, from the top. */
export type FieldPath = readonly (string | number)[]

/** Aliases that a file may make of its anchors: more would be a bomb. */
const MOST_ALIASES = 100

export interface YamlFile {
  value: unknown
  /** `path:line:column` of the deepest part of a field that is there; the path alone where none is. */
  placeOf(field: FieldPath): string
}

/** Throws UserError for what cannot be read. */
export function readText(path: string): string {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw userError("config_not_readable", { path, detail: code ?? message }, { cause: error })
  }
}

/** `path` is only for messages. Throws UserError for what is no YAML. */
export function parseYaml(text: string, path: string): YamlFile {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines })
  const at = (offset: number | undefined) => {
    if (offset === undefined) return path
    const { line, col } = lines.linePos(offset)
    return `${path}:${line}:${col}`
  }
  const broken = document.errors[0]
  if (broken !== undefined)
    throw userError("config_invalid", {
      path: at(broken.pos[0]),
      detail: broken.message.split("\n")[0]!.replace(/ at line .*$/, ""),
    })
  return {
    value: document.toJS({ maxAliasCount: MOST_ALIASES }),
    placeOf: (field) => at(offsetOf(document.contents, field)),
  }
}

function offsetOf(root: unknown, field: FieldPath): number | undefined {
  let node = root
  let offset: number | undefined
  for (const name of field) {
    const next = isMap(node) ? inMap(node.items, name) : isSeq(node) ? inList(node.items, name) : null
    if (next === null) break
    offset = next.offset ?? offset
    node = next.node
  }
  return offset
}

function inMap(items: readonly { key: unknown; value: unknown }[], name: string | number) {
  const pair = items.find(({ key }) => isScalar(key) && String(key.value) === String(name))
  if (pair === undefined) return null
  return { node: pair.value, offset: (pair.key as Node).range?.[0] }
}

function inList(items: readonly unknown[], at: string | number) {
  const node = items[Number(at)]
  return node === undefined ? null : { node, offset: (node as Node).range?.[0] }
}
