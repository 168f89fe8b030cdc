/// The report's look: readable in light and dark, on paper, and without telling colours apart (dashes, dots, words).
enum ReportStyle {
  static let css = """
    :root{color-scheme:light dark;--ink:#1b1f24;--dim:#59636e;--paper:#fff;--line:#d1d9e0;--good:#1a7f37;--bad:#b42318;\
    --c1:#0072b2;--c2:#d55e00;--c3:#009e73;--c4:#cc79a7;--c5:#8a6d00;--c6:#5b5bd6}
    @media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9198a1;--paper:#0d1117;--line:#3d444d;--good:#3fb950;\
    --bad:#ff7b72;--c1:#56b4e9;--c2:#ff9e57;--c3:#3ddc97;--c4:#f0a3cf;--c5:#e3c04b;--c6:#a5a5ff}}
    body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
    main{max-width:940px;margin:0 auto;padding:24px 16px 64px}
    h1{font-size:24px;line-height:1.3;margin:8px 0}h2{font-size:19px;margin:40px 0 8px;border-bottom:1px solid var(--line)}
    h3{font-size:15px;margin:16px 0 4px}pre{overflow-x:auto;padding:8px;border:1px solid var(--line);border-radius:6px}
    .badge{padding:2px 8px;border-radius:4px;border:1px solid currentColor}.good{color:var(--good)}.bad{color:var(--bad)}
    ul.checks{list-style:none;padding:0}.scroll{overflow-x:auto}
    table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
    th,td{padding:3px 8px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
    th:first-child,td:first-child{text-align:left}th{color:var(--dim);font-weight:600}
    figure{margin:16px 0}figcaption{font-weight:600}svg{width:100%;height:auto;display:block}
    svg text{fill:var(--dim);font-size:12px}.grid{stroke:var(--line);stroke-width:1;fill:none}
    .reference{stroke:var(--dim);stroke-width:1;stroke-dasharray:6 4;fill:none}
    .line{fill:none;stroke-width:1.8}.dashed{stroke-dasharray:5 4}.dot{stroke:none}
    .line.c1{stroke:var(--c1)}.line.c2{stroke:var(--c2)}.line.c3{stroke:var(--c3)}.line.c4{stroke:var(--c4)}\
    .line.c5{stroke:var(--c5)}.line.c6{stroke:var(--c6)}
    .dot.c1{fill:var(--c1)}.dot.c2{fill:var(--c2)}.dot.c3{fill:var(--c3)}.dot.c4{fill:var(--c4)}\
    .dot.c5{fill:var(--c5)}.dot.c6{fill:var(--c6)}
    .legend{margin:4px 0;font-size:12px;color:var(--dim)}.legend span{margin-right:12px;white-space:nowrap}
    .legend .key{display:inline-block;width:28px;height:10px;margin-right:4px}details{font-size:13px;color:var(--dim)}
    @media print{details{display:none}section{break-inside:avoid}}
    """
}
