module github.com/rackseed/rackseed/build/modules/pause

go 1.26.0
