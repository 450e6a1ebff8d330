Feature: Tools
  A step calls a tool by MCP, or by its OpenAPI operation.

  Scenario: A tool
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: mcp
        with:
          protocolVersion: '2025-06-18'
          method: tools/call
          transport: {http: {endpoint: 'interlock://tools/stock'}}
          parameters: {name: check, arguments: {sku: '${ .sku }'}}
        output: {as: .structuredContent}
    """
    And given the workflow input is:
    """yaml
    sku: A-1
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {structuredContent: {left: 3}}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    left: 3
    """
    And ask should call mcp with:
    """yaml
    parameters: {name: check, arguments: {sku: A-1}}
    """

  Scenario: The short form
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask: {call: gateway.tool, with: {tool: stock.check, arguments: {sku: '${ .sku }'}}}
    """
    And given the workflow input is:
    """yaml
    sku: A-1
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {left: 3}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    left: 3
    """
    And ask should call gateway.tool with:
    """yaml
    arguments: {sku: A-1}
    """

  Scenario: An operation
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask: {call: openapi, with: {document: {endpoint: 'interlock://tools/stock'}, operationId: check, parameters: {sku: '${ .sku }'}}}
    """
    And given the workflow input is:
    """yaml
    sku: A-1
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {left: 3}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    left: 3
    """
    And ask should call openapi with:
    """yaml
    operationId: check
    parameters: {sku: A-1}
    """

  Scenario: A function of the document
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use:
      functions:
        check: {call: gateway.tool, with: {tool: stock.check, arguments: {sku: '${ .sku }'}}}
    do:
    - ask: {call: check, with: {sku: '${ .wanted }'}}
    """
    And given the workflow input is:
    """yaml
    wanted: A-1
    """
    And given the answers of steps are:
    """yaml
    /do/0/ask/function: {output: {left: 3}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    left: 3
    """

  Scenario: A program is refused
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: mcp
        with:
          protocolVersion: '2025-06-18'
          method: tools/call
          transport: {stdio: {command: npx}}
          parameters: {name: check, arguments: {sku: '${ .sku }'}}
    """
    When the workflow is executed
    Then the document should be refused at '/do/0/ask/with/transport/stdio'
