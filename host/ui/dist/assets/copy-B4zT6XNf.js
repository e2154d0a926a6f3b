<<<<<<<< HEAD:host/ui/dist/assets/copy-B4zT6XNf.js
import{A as i,C as u,J as d,u as e}from"./index-C1-kfOW-.js";const p=24;function y({label:r,text:n}){const t=i(null),c=u(""),l=d(),a=async()=>{t.current?.select();try{await navigator.clipboard.writeText(n),c.value="Copied."}catch{c.value="Selected: copy it with Ctrl+C."}},o=n.trimEnd().split(`
========
import{A as i,C as u,K as d,u as e}from"./index-B24MXV6i.js";const p=24;function y({label:r,text:n}){const t=i(null),c=u(""),l=d(),a=async()=>{t.current?.select();try{await navigator.clipboard.writeText(n),c.value="Copied."}catch{c.value="Selected: copy it with Ctrl+C."}},o=n.trimEnd().split(`
>>>>>>>> clips:host/ui/dist/assets/copy-Bnv2SYrD.js
`).length,s={id:l,readOnly:!0,value:n,onFocus:()=>t.current?.select()};return e("div",{class:"copy",children:[e("label",{for:l,children:r}),o>1?e("textarea",{ref:t,...s,rows:Math.min(o,p),spellcheck:!1}):e("input",{ref:t,...s}),e("button",{type:"button",onClick:()=>void a(),children:"Copy"}),e("span",{class:"quiet",role:"status",children:c.value})]})}export{y as C};
