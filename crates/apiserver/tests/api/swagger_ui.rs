//! A person can look at the schema with a browser and nothing else.

use crate::common::*;

#[tokio::test]
async fn the_page_and_all_it_needs_come_from_this_server() {
    let server = Server::start().await;
    for path in ["/swagger-ui", "/swagger-ui/"] {
        let page = server.get(path).await;
        assert_eq!(page.code, 200, "{path}");
        let parts: Vec<&str> = ["src=\"", "href=\""]
            .iter()
            .flat_map(|mark| page.text.split(mark).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(parts.len() >= 2, "{}", page.text);
        for part in parts {
            assert!(part.starts_with("/swagger-ui/"), "{part} is on this server");
            assert_eq!(server.get(part).await.code, 200, "{part}");
        }
        assert!(page.text.contains("/openapi/v2"));
    }
    assert_eq!(server.get("/swagger-ui/nothing").await.code, 404);
    assert_eq!(server.send("POST", "/swagger-ui", &[], "").await.code, 405);
}
