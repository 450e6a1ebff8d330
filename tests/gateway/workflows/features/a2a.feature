Feature: Agents
  A step asks an agent by A2A, under a contract for both sides.

  Scenario: A message
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: a2a
        with:
          server: interlock://agents/sales
          method: message/send
          parameters: {message: {parts: [{data: {sku: '${ .sku }'}}]}}
        metadata: {gateway: {kind: ai}}
        input: {schema: {document: {type: object}}}
        output: {as: '.artifacts[0].parts[0].data', schema: {document: {type: object, required: [total]}}}
    """
    And given the workflow input is:
    """yaml
    sku: A-1
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {artifacts: [{parts: [{data: {total: 12}}]}]}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    total: 12
    """
    And ask should call a2a with:
    """yaml
    parameters: {message: {parts: [{data: {sku: A-1}}]}}
    """

  Scenario: The short form
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: '${ .sku }'}
        metadata: {gateway: {kind: ai}}
        input: {schema: {document: {type: object}}}
        output: {as: '.', schema: {document: {type: object, required: [total]}}}
    """
    And given the workflow input is:
    """yaml
    sku: A-1
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {total: 12}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    total: 12
    """
    And ask should call gateway.agent with:
    """yaml
    input: A-1
    """

  Scenario: An answer that breaks the contract
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: x}
        metadata: {gateway: {kind: ai}}
        input: {schema: {document: {type: object}}}
        output: {as: '.', schema: {document: {type: object, required: [total]}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {sum: 12}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/spec/1.0.0/errors/validation
    instance: /do/0/ask
    """

  Scenario: Too little confidence
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: x}
        metadata: {gateway: {kind: ai, minConfidence: 0.8}}
        input: {schema: {document: {type: object}}}
        output: {as: '.', schema: {document: {type: object, required: [total]}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {total: 1, confidence: 0.7}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:interlock:error:low-confidence
    """

  Scenario: No confidence at all
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: x}
        metadata: {gateway: {kind: ai, minConfidence: 0.8}}
        input: {schema: {document: {type: object}}}
        output: {as: '.', schema: {document: {type: object, required: [total]}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {total: 1}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:interlock:error:low-confidence
    """

  Scenario: A rule that does not hold
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.agent
        with: {agent: sales, input: x}
        metadata: {gateway: {kind: ai, check: {rule: .total > 0}}}
        input: {schema: {document: {type: object}}}
        output: {as: '.', schema: {document: {type: object, required: [total]}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: {total: 0}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:interlock:error:check-failed
    """

  Scenario: A step without a contract is refused
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: a2a
        with:
          server: interlock://agents/sales
          method: message/send
          parameters: {message: {parts: [{data: {sku: '${ .sku }'}}]}}
    """
    When the workflow is executed
    Then the document should be refused at '/do/0/ask'
