import{u as e}from"./index-QX9ItLxR.js";function n(){return e("h1",{children:"Events"})}export{n as default};
