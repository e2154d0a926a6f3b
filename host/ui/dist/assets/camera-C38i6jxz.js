import{u as e}from"./index-QX9ItLxR.js";function t({id:r}){return e("h1",{children:r})}export{t as default};
